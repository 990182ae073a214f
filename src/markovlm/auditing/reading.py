"""One reader's part of an audit: every CoT read alone, with the question, without itself, damaged, cut, and sentence by sentence.

The studies are those of a run (`analysis`), each group of CoTs in the place of a run's own. Readings are kept as they come in the
audit's folder, so that an interrupted audit continues and two groups that share a CoT have it read once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from markovlm.analysis.attribution import Attribution, aggregate
from markovlm.analysis.controls import bypass, cut_before, leak
from markovlm.analysis.explain import Manner, attribute
from markovlm.analysis.fragility import RAW, measure_damage, perturb_result, whole
from markovlm.analysis.leak import first_appearance
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import Counting, Reader, Study, StudyCot, bar, open_folder
from markovlm.auditing.plan import AuditCot, AuditRequest
from markovlm.errors import UserError
from markovlm.evaluation.evaluate import how_evaluated
from markovlm.evaluation.run import label_of
from markovlm.models.logprobs import by_row, token_stats
from markovlm.models.memory import chunks, map_splitting
from markovlm.models.sequences import batch_of, span_hidden
from markovlm.rollouts.prompter import build_prompter
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target
from markovlm.tasks.prompts import UNSAID

SIGHTED, HIDDEN, CHOICES = "non_markovian", "markovian", "choices"
MOST_SHOWN = 3  # CoTs of a group with their load, on the page


@dataclass(slots=True)
class GroupRead:
    """What one reader made of one group; a value a CoT in `cots`' order."""

    cots: list[StudyCot]
    alone: list[Scored]  # from the CoT alone
    both: list[Scored]  # from question and CoT
    question: list[Scored]  # from the question alone
    nothing: list[Scored]  # from neither: what anybody could guess
    cut: list[Scored]  # from the CoT cut before the gold answer first stands in it; the whole CoT where it never does
    reasoned: list[Scored]  # the worse of the whole CoT and the CoT cut before the gold answer first stands in it
    stated: list[bool]  # does the gold answer stand in it?
    with_choices: list[Scored] = field(
        default_factory=list[Scored]
    )  # from the CoT, with the choices in sight; none where answers are no letters
    choices_alone: list[Scored] = field(default_factory=list[Scored])  # from the choices alone
    text: list[tuple[float, int]] = field(
        default_factory=list[tuple[float, int]]
    )  # (ln p(CoT | question), tokens); none if not asked for
    studies: dict[str, Any] = field(default_factory=dict[str, Any])
    shown: list[Attribution] = field(default_factory=list[Attribution])

    @property
    def as_read(self) -> list[Scored]:
        """What the studies and the order go by: letters mean nothing without the choices."""
        return self.with_choices or self.alone

    @property
    def baseline(self) -> list[Scored]:
        """What anybody could guess from what is beside the CoT."""
        return self.choices_alone or self.nothing


@dataclass(frozen=True, slots=True)
class ReaderRead:
    """One reader's part."""

    reader: str
    model: str
    prompt_style: str
    groups: dict[str, GroupRead]
    too_long: int  # CoTs that don't fit its context
    unknown: float  # share of the CoTs' tokens that are its unknown token


def read_all(
    name: str, target: Target, request: AuditRequest, counting: Counting | None, say: Callable[[str], None]
) -> ReaderRead:
    """Load the reader, read everything asked for, let it go."""
    setup = _prepared(name, target, request)
    prompter, lm = setup.prompter, setup.lm
    fits, too_long, unknown, tokens = _encoded(setup, request)
    if not any(fits.values()):
        raise UserError(f"--reader {name}: no CoT fits its context of {setup.lm.context_tokens} tokens")
    how = replace(
        how_evaluated(setup.config, prompter, step=setup.config.training.steps),
        conditioning=CHOICES if setup.task.answer_type == "letter" else HIDDEN,
        seed=request.seed,
    )
    label = label_of(target, setup, "audit", how)
    itself = hashlib.blake2b(f"{label.model}/{label.weights}/{how}/{setup.task.extractors}".encode(), digest_size=4).hexdigest()
    reader = Reader(setup, how.reader == "frozen", request.out / f"readings-{itself}.jsonl", name, counting)
    say(f"{name}: {_about(tokens)}")
    found: dict[str, GroupRead] = {}
    for group, cots in fits.items():
        if not cots:
            continue
        mark = hashlib.blake2b(group.encode(), digest_size=4).hexdigest()
        study = Study(
            replace(target, name=name),
            setup,
            replace(label, checkpoint=f"group-{mark}"),
            cots,
            request.out,
            reader,
            same_source=False,
        )
        found[group] = _read_group(study, request)
    if "legibility" in request.parts:
        with torch.no_grad(), lm.frozen() if reader.frozen else lm.merged():
            _read_texts(setup, found, request.out / f"texts-{itself}.jsonl", bar_of=counting, name=name)
    return ReaderRead(name, target.config.model, prompter.style, found, too_long, unknown)


def _prepared(name: str, target: Target, request: AuditRequest) -> Setup:
    """The reader with prompts of a style that can carry the questions."""
    try:
        setup = target.prepare()
        examples = [cot.example for cot in request.material.cots]
        style, budget = target.config.prompt.style, budget_named(target)
        header, end = target.config.prompt.answer_header, target.config.objective.answer_end
        setup.prompter = build_prompter(setup.task, setup.lm.tokenizer, style, budget, header, examples, answer_end=end)
        for example in examples:
            setup.prompter.reader_prompt(example, SIGHTED)
            if setup.task.answer_type == "letter":
                setup.prompter.reader_prompt(example, CHOICES)
    except UserError as error:
        raise UserError(f"--reader {name}: {error}") from error
    return setup


def budget_named(target: Target) -> int:
    """The CoT budget that prompts mention: the one a run was trained with, or that the user gave. Else none is named: these CoTs kept to none,
    and a reader that sees nothing else takes it for the answer."""
    given = target.config.rollouts.max_cot_tokens
    return given if given is not None else UNSAID


def _encoded(setup: Setup, request: AuditRequest) -> tuple[dict[str, list[StudyCot]], int, float, Mapping[str, int]]:
    """The CoTs of each group in this reader's tokens, those too long for it left out; how many; the share of unknown tokens; the cost."""
    from markovlm.auditing.plan import cost

    prompter, limit = setup.prompter, setup.lm.context_tokens
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
    return fits, too_long, unknown / total if total else 0.0, cost(request, lengths)


def _study_cot(cot: AuditCot, ids: tuple[int, ...]) -> StudyCot:
    return StudyCot(cot.example, cot.number, ids, cot.text, not cot.row.truncated)


def _about(cost: Mapping[str, int]) -> str:
    parts = ", ".join(f"{part} {tokens:,}" for part, tokens in cost.items())
    return f"about {sum(cost.values()):,} tokens to read, answers apart ({parts}); what is kept from before is not read again"


# ------------------------------------------------------------------------------------------------------------ one group


def _read_group(study: Study, request: AuditRequest) -> GroupRead:
    cots, kind = study.cots, study.setup.task.answer_type
    empty = [Variant(cot.example, cot.number, "empty", (), cot.ids, HIDDEN) for cot in cots]
    sees = study.conditioning
    alone = study.read([whole(study, cot, RAW, HIDDEN) for cot in cots], "CoTs alone")
    both = study.read([whole(study, cot, RAW, SIGHTED) for cot in cots], "question and CoT")
    question = study.read([replace(variant, conditioning=SIGHTED) for variant in empty], "questions alone")
    nothing = study.read(empty, "nothing")
    places = [first_appearance(cot.text, cot.example.answer, kind, cot.example.choices) for cot in cots]
    cut = study.read(
        [
            whole(study, cot, RAW) if place is None else cut_before(study, cot, place)
            for cot, place in zip(cots, places, strict=True)
        ],
        "CoTs cut before the answer",
    )
    found = GroupRead(list(cots), alone, both, question, nothing, cut, [], [place is not None for place in places])
    if sees == CHOICES:
        found.with_choices = study.read([whole(study, cot, RAW) for cot in cots], "CoTs and choices")
        found.choices_alone = study.read([replace(variant, conditioning=CHOICES) for variant in empty], "choices alone")
    found.reasoned = [_worse(a, b) for a, b in zip(found.as_read, cut, strict=True)]
    if "bypass" in request.parts:
        found.studies["bypass"] = bypass(study)[0]
    if "leak" in request.parts:
        found.studies["leak"] = leak(study)[0]
    if "damage" in request.parts:
        found.studies["damage"] = perturb_result(measure_damage(study, request.plan), None)
    if "load" in request.parts:
        attributions = attribute(study, study.cots, Manner("sentence", "remove", request.most_sentences))
        found.studies["load"] = aggregate(attributions, request.seed)
        found.shown = [one for one in attributions if one.units][:MOST_SHOWN]
    return found


def _worse(one: Scored, other: Scored) -> Scored:
    """Right only if both are, and as likely as the less likely."""
    right = None if one.correct is None or other.correct is None else one.correct and other.correct
    return Scored(min(one.logprob, other.logprob), correct=right)


# ------------------------------------------------------------------------------------------------------- the text itself


def _read_texts(setup: Setup, groups: Mapping[str, GroupRead], path: Path, *, bar_of: Counting | None, name: str) -> None:
    """ln p(CoT | question) of every CoT, kept in `path`."""
    folder = open_folder(path.parent)
    RunDirectory(path.parent).mend_last_line(path.name)
    known = {row["digest"]: (row["logprob"], row["tokens"]) for row in read_rows(path)}
    keyed = [(cot, _digest(cot)) for read in groups.values() for cot in read.cots]
    todo = list({digest: cot for cot, digest in keyed if digest not in known and cot.ids}.items())
    todo.sort(key=lambda item: len(item[1].ids))
    with bar(bar_of, f"{name}: how likely the text is", len(todo)) as advance:
        for batch in chunks(todo, max(1, setup.config.evaluation.batch_size // 4)):
            scores = map_splitting(lambda part: _text_logprobs(setup, [cot for _, cot in part]), list(batch))
            rows = [
                {"digest": digest, "id": cot.example.id, "logprob": score, "tokens": len(cot.ids)}
                for (digest, cot), score in zip(batch, scores, strict=True)
            ]
            folder.append(path.name, rows)
            known |= {row["digest"]: (row["logprob"], row["tokens"]) for row in rows}
            if advance is not None:
                advance(len(batch))
    for read in groups.values():
        read.text = [known.get(_digest(cot), (math.nan, 0)) for cot in read.cots]


def _text_logprobs(setup: Setup, cots: Sequence[StudyCot]) -> list[float]:
    batch = batch_of([(setup.prompter.reader_prompt(cot.example, SIGHTED), cot.ids, 0) for cot in cots])
    span = span_hidden(setup.lm, batch)
    stats = token_stats(setup.lm, span.hidden, span.targets)
    return by_row(stats.logp, span.row, len(batch.rows)).tolist()


def _digest(cot: StudyCot) -> str:
    parts = (cot.example.question, *cot.example.choices, " ".join(map(str, cot.ids)))
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
