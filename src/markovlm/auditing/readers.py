"""The readers of an audit's CoTs: a loaded model with its prompts, which also scores texts as a whole.

A model on a server (`auditing/server.py`) is one too.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from markovlm.analysis.scoring import Variant, encode_cot
from markovlm.analysis.study import Counting, Reader, StudyCot, bar, kept_rows, open_folder
from markovlm.auditing.plan import AuditCot, AuditRequest, cost
from markovlm.errors import UserError
from markovlm.evaluation.evaluate import How, how_evaluated
from markovlm.evaluation.run import label_of
from markovlm.evaluation.store import Label
from markovlm.intervals import duration_text
from markovlm.models.logprobs import by_row, token_stats
from markovlm.models.memory import chunks, map_splitting
from markovlm.models.sequences import batch_of, span_hidden
from markovlm.rollouts.prompter import build_prompter
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target
from markovlm.tasks.base import Example
from markovlm.tasks.prompts import UNSAID

T = TypeVar("T")
SIGHTED, HIDDEN, CHOICES = "non_markovian", "markovian", "choices"
_WORTH_SAYING = 30.0  # seconds: how long is left is said where it is more


@dataclass(slots=True)
class OpenReader:
    """A model that is ready to read."""

    name: str  # as the user gave it
    model: str
    target: Target
    setup: Setup
    reader: Reader  # keeps what it reads
    label: Label
    identity: str  # tells the files of readers and prompts apart

    @property
    def context_tokens(self) -> int:
        return self.setup.lm.context_tokens

    def text_scores(self, cots: Sequence[StudyCot]) -> list[tuple[float, int]]:
        """(ln p(CoT | question), its tokens) of each."""
        parts = [(self.setup.prompter.reader_prompt(cot.example, SIGHTED), cot.ids) for cot in cots]
        scores = self.continuation_logprobs(parts)
        return [(score, len(ids)) for score, (_, ids) in zip(scores, parts, strict=True)]

    @torch.no_grad()
    def continuation_logprobs(self, parts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
        """ln p(continuation | prompt) of each pair of token ids, summed over the continuation; nats."""
        lm = self.setup.lm
        with lm.frozen() if self.reader.frozen else lm.merged():
            batch = batch_of([(prompt, ids, 0) for prompt, ids in parts])
            span = span_hidden(lm, batch)
            stats = token_stats(lm, span.hidden, span.targets)
            return by_row(stats.logp, span.row, len(batch.rows)).tolist()


def open_model(name: str, target: Target, request: AuditRequest, counting: Counting | None) -> OpenReader:
    """Load a model, with prompts of a style that can carry the questions. Raises UserError in one line if that can't be."""
    examples = [cot.example for cot in request.material.cots]
    setup = target.prepare()
    budget = budget_named(target)
    prompt, end = target.config.prompt, target.config.objective.answer_end
    setup.prompter = build_prompter(
        setup.task, setup.lm.tokenizer, prompt.style, budget, prompt.answer_header, examples, answer_end=end
    )
    check_prompts(setup, examples)
    label = label_of(target, setup, "audit", how_read(setup, request.seed))
    identity = identity_of(label, setup.task.extractors, budget)
    reader = Reader(setup, label.how.reader == "frozen", request.out / f"readings-{identity}.jsonl", name, counting)
    return OpenReader(name, target.config.model, target, setup, reader, label, identity)


def how_read(setup: Setup, seed: int) -> How:
    """As a reader of an audit reads: letters with the choices visible, all else from the CoT alone."""
    how = how_evaluated(setup.config, setup.prompter, step=setup.config.training.steps)
    return replace(how, conditioning=CHOICES if setup.task.answer_type == "letter" else HIDDEN, seed=seed)


def identity_of(label: Label, extractors: Sequence[str], budget: int) -> str:
    """A mark of everything that decides a reading beside the CoT: model, prompts, extraction."""
    what = f"{label.model}/{label.weights}/{label.how}/{extractors}/{label.task}/{label.task_options}/{budget}"
    return hashlib.blake2b(what.encode(), digest_size=4).hexdigest()


def check_prompts(setup: Setup, examples: Sequence[Example]) -> None:
    """Raise UserError if a question can't be put to this reader."""
    for example in examples:
        setup.prompter.reader_prompt(example, SIGHTED)
        if setup.task.answer_type == "letter":
            setup.prompter.reader_prompt(example, CHOICES)


def budget_named(target: Target) -> int:
    """The CoT budget that prompts mention: the one a run was trained with, or that the user gave. Otherwise none: these CoTs had no
    budget, and a reader that sees no other number may take it for the answer.
    """
    given = target.config.rollouts.max_cot_tokens
    return given if given is not None and target.config.prompt.mention_budget else UNSAID


# ------------------------------------------------------------------------------------------------------- CoTs as tokens


@dataclass(frozen=True, slots=True)
class Encoded:
    """The CoTs in a reader's tokens."""

    fits: dict[str, list[StudyCot]]  # of each group, those that fit its context
    too_long: int
    unknown: float  # share of all tokens that are its unknown token
    cost: Mapping[str, int]  # tokens to read, by part


def encode_all(opened: OpenReader, request: AuditRequest) -> Encoded:
    """The CoTs in a reader's tokens. Raises UserError if no CoT fits its context."""
    setup = opened.setup
    prompter, limit = setup.prompter, opened.context_tokens
    unknown_id = getattr(setup.lm.tokenizer, "unk_token_id", None)
    fits: dict[str, list[StudyCot]] = {}
    lengths: list[tuple[int, int]] = []
    too_long = unknown = total = 0
    for group, cots in request.material.groups.items():
        fits[group] = []
        for cot in cots:
            ids = encode_cot(prompter, cot.text)
            prompt = len(prompter.reader_prompt(cot.example, SIGHTED))
            rest = len(prompter.header_ids) + max(setup.task.max_answer_tokens, len(prompter.target_ids(cot.example)))
            lengths.append((prompt, len(ids)))
            unknown += sum(token == unknown_id for token in ids)
            total += len(ids)
            if prompt + len(ids) + rest > limit:
                too_long += 1
            else:
                fits[group].append(_study_cot(cot, ids))
    if not any(fits.values()):
        raise UserError(f"--reader {opened.name}: no CoT fits its context of {limit} tokens")
    return Encoded(fits, too_long, unknown / total if total else 0.0, cost(request, lengths))


def _study_cot(cot: AuditCot, ids: tuple[int, ...]) -> StudyCot:
    return StudyCot(cot.example, cot.number, ids, cot.text, not cot.row.truncated)


# ---------------------------------------------------------------------------------------------------------------- pace


class Pace:
    """Reports after the first batch how long the rest will take."""

    def __init__(self, opened: OpenReader, say: Callable[[str], None]):
        self.opened, self.say = opened, say
        self.began, self.said = time.perf_counter(), False

    def saw(self, done: Sequence[Variant], left: Sequence[Variant]) -> None:
        """Called when a batch is done and others are left."""
        if self.said or not left:
            return
        self.said = True
        spent = time.perf_counter() - self.began
        read, to_read = (sum(map(tokens_of, variants)) for variants in (done, left))
        seconds = spent * to_read / max(1, read)
        if seconds > _WORTH_SAYING:
            self.say(
                f"{self.opened.name}: {read / spent:,.0f} tokens per second, about {duration_text(seconds)} for the remaining {len(left):,} texts"
            )


def tokens_of(variant: Variant) -> int:
    """About what reading it costs, in tokens: what it does not share with its CoT, and its answer."""
    shared = next(
        (i for i, (a, b) in enumerate(zip(variant.ids, variant.trunk, strict=False)) if a != b),
        min(len(variant.ids), len(variant.trunk)),
    )
    return len(variant.ids) - (shared if variant.ids != variant.trunk else 0) + _ANSWER


_ANSWER = 12  # tokens of header and answer


# ------------------------------------------------------------------------------------------------------- the text itself


def read_texts(
    opened: OpenReader, cots: Sequence[StudyCot], folder: Path, counting: Counting | None
) -> dict[str, tuple[float, int]]:
    """`text_digest` -> (ln p(CoT | question), tokens) of every CoT; (nan, 0) of an empty one. Kept in `folder`."""

    def read(some: Sequence[StudyCot]) -> list[dict[str, Any]]:
        scores = zip(some, opened.text_scores(some), strict=True)
        return [{"id": cot.example.id, "logprob": score, "tokens": tokens} for cot, (score, tokens) in scores]

    keyed = {text_digest(cot): cot for cot in cots}
    todo = sorted(((digest, cot) for digest, cot in keyed.items() if cot.ids), key=lambda item: len(item[1].ids))
    file, size = f"texts-{opened.identity}.jsonl", opened.setup.config.evaluation.batch_size // 4
    known = read_once(folder / file, dict(todo), read, size, f"{opened.name}: how likely the text is", counting)
    return {digest: (known[digest]["logprob"], known[digest]["tokens"]) if digest in known else (math.nan, 0) for digest in keyed}


def read_once(
    path: Path,
    asked: Mapping[str, T],
    read: Callable[[Sequence[T]], list[dict[str, Any]]],
    size: int,
    doing: str,
    counting: Counting | None,
) -> dict[str, dict[str, Any]]:
    """Read everything asked for, by digest, with results kept in a file: what is in it is not read again."""
    kept = open_folder(path.parent)
    known = {row["digest"]: row for row in kept_rows(path)}
    todo = [(digest, one) for digest, one in asked.items() if digest not in known]
    with bar(counting, doing, len(todo)) as advance:
        for batch in chunks(todo, max(1, size)):
            found = map_splitting(lambda some: read([one for _, one in some]), list(batch))
            rows = [{"digest": digest, **row} for (digest, _), row in zip(batch, found, strict=True)]
            kept.append(path.name, rows)
            known |= {row["digest"]: row for row in rows}
            advance(len(batch))
    return known


def text_digest(cot: StudyCot) -> str:
    """A hash that distinguishes CoTs and their questions."""
    parts = (cot.example.question, *cot.example.choices, " ".join(map(str, cot.ids)))
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
