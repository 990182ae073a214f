"""CoTs in the words of another model, for the perturbation `paraphrase` (Lanham et al. 2023, arXiv 2307.13702).

The model is asked to keep every number and name; its replies are checked for that; a CoT whose paraphrase fails the check stays as it
was and is counted. Every reply is kept beside the results, so that a continued study asks for none twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from markovlm.analysis.meaning import digitize_numbers, names_in
from markovlm.analysis.segments import numbers
from markovlm.analysis.study import CotKey, Counting, Study, StudyCot, bar, kept_rows, open_folder
from markovlm.config import flatten, nest
from markovlm.errors import UserError
from markovlm.evaluation.store import weights_identity
from markovlm.models.load import load_tokenizer
from markovlm.models.memory import chunks
from markovlm.models.registry import resolve
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target, open_targets
from markovlm.tasks.prompts import chat_prompt

NAME = "paraphrase"  # the perturbation
INSTRUCTION = (
    "Say the following reasoning in other words. Keep every number and every name, write numbers as they are written, keep the order of the "
    "steps, add nothing and leave nothing out. Reply with the reworded reasoning alone."
)
_PLAIN = "Reasoning:\n{cot}\n\nThe same reasoning in other words, with every number and every name kept:\n"
_LONGER = 1.5  # a rewording may have so many times the tokens of its CoT
_MORE = 32  # tokens, and so many
_BLANK = "\n\n"  # ends the reply of a model without a chat template
REASONS = ("empty", "cut off", "too long", "numbers", "names")  # why a reply is rejected


@dataclass(frozen=True, slots=True)
class Paraphraser:
    """The model that paraphrases, and how: `temperature` 0 is greedy."""

    name: str
    target: Target
    temperature: float = 0.0

    @property
    def digest(self) -> str:
        """A hash of everything that decides a reply except the CoT and the seed."""
        config = self.target.config
        folders = [
            path for path in (Path(resolve(config.model)).expanduser(), self.target.adapter) if path is not None and path.is_dir()
        ]
        parts = (config.model, weights_identity(folders), config.prompt.style, INSTRUCTION, _PLAIN, repr(self.temperature))
        return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """What the paraphraser said of one CoT, and what is wrong with it (one of `REASONS`)."""

    text: str
    rejected: str | None


@dataclass(frozen=True, slots=True)
class Reworded:
    """The replies to a study's CoTs."""

    by: str
    temperature: float
    replies: Mapping[CotKey, Reply]

    def text(self, cot: StudyCot) -> str:
        """The CoT as reworded; as it was, where the reply was rejected."""
        reply = self.replies[cot.key]
        return cot.text if reply.rejected else reply.text

    def to_json(self) -> dict[str, Any]:
        """Counts: asked, accepted, rejected by reason."""
        reasons = Counter(reply.rejected for reply in self.replies.values() if reply.rejected)
        rejected = {reason: reasons[reason] for reason in REASONS if reasons[reason]}
        return {
            "temperature": self.temperature,
            "asked": len(self.replies),
            "accepted": len(self.replies) - sum(reasons.values()),
            "rejected": rejected,
        }


def open_paraphraser(name: str, temperature: float, studied: Target) -> Paraphraser:
    """A model, or the last checkpoint of a run. Raises UserError in one line for one that is not there; its weights are not loaded."""
    if not 0 <= temperature <= 2:
        raise UserError(f"--paraphrase-temperature {temperature:g}: must be between 0 (greedy) and 2")
    settings = flatten(studied.config.model_dump(mode="json"))
    taken = nest(
        {key: value for key, value in settings.items() if key == "task" or key.startswith(("task_options.", "loading.device"))}
    )
    try:
        target = open_targets(name, "last", taken)[0]
        tokenizer = load_tokenizer(target.config.model, target.config.loading)
    except UserError as error:
        raise UserError(f"--paraphraser {name}: {error}") from error
    ids = tokenizer(INSTRUCTION, add_special_tokens=False)["input_ids"]
    if not ids or tokenizer.unk_token_id in ids:
        raise UserError(f"--paraphraser {name}: its tokenizer can't encode a request in English; name a model that writes text")
    return Paraphraser(name, target, temperature)


def reword(paraphraser: Paraphraser, studies: Sequence[Study], counting: Counting | None = None) -> list[Reworded]:
    """The replies to the CoTs of each study (which may be closed). The model is loaded only if one of them is not there yet."""
    kept = [_kept(study, paraphraser) for study in studies]
    todo = [[cot for cot in study.cots if _key(study, cot) not in have] for study, have in zip(studies, kept, strict=True)]
    if any(todo):
        setup = paraphraser.target.prepare()
        for study, have, cots in zip(studies, kept, todo, strict=True):
            with bar(counting, f"{paraphraser.name}: paraphrases", len(cots)) as advance:
                for batch, fresh in _replies(setup, study, cots, paraphraser.temperature):
                    have |= {_key(study, cot): reply for cot, reply in zip(batch, fresh, strict=True)}
                    _keep(study, paraphraser, batch, fresh)
                    advance(len(batch))
    return [
        Reworded(
            paraphraser.name,
            paraphraser.temperature,
            {cot.key: _judged(cot, *have[_key(study, cot)]) for cot in study.cots},
        )
        for study, have in zip(studies, kept, strict=True)
    ]


# --------------------------------------------------------------------------------------------------------------- asking

_Said = tuple[str, str | None]  # text, and "cut off" or "too long" where that is what became of it


@torch.no_grad()
def _replies(
    setup: Setup, study: Study, cots: Sequence[StudyCot], temperature: float
) -> Iterator[tuple[list[StudyCot], list[_Said]]]:
    """In batches of like length; a reply depends on nothing but its CoT, the seed and the temperature."""
    plain, size = setup.prompter.style != "chat", setup.config.evaluation.batch_size
    requests = {cot.key: _request(setup, study, cot) for cot in cots}
    room = setup.lm.context_tokens
    fits = {key: len(request.prompt) + budget <= room for key, (request, budget) in requests.items()}
    if left := [cot for cot in cots if not fits[cot.key]]:
        yield left, [("", "too long")] * len(left)
    for blank in (False, True):
        stop = (_BLANK,) if plain and not blank else ()
        some = sorted(
            (cot for cot in cots if fits[cot.key] and (_BLANK in cot.text.strip()) == blank), key=lambda cot: requests[cot.key][1]
        )
        for batch in chunks(some, size):
            asked, budgets = zip(*(requests[cot.key] for cot in batch), strict=True)
            with setup.lm.merged():
                groups = setup.sampler().sample(asked, Decoding(max(budgets), temperature, stop=stop))
            yield list(batch), [_said(setup, group[0], budget) for group, budget in zip(groups, budgets, strict=True)]


def _request(setup: Setup, study: Study, cot: StudyCot) -> tuple[SampleRequest, int]:
    """The prompt with its random stream, and how many tokens the reply may have."""
    tokenizer = setup.lm.tokenizer
    if setup.prompter.style == "chat":
        ids = tokenizer(chat_prompt(tokenizer, f"{INSTRUCTION}\n\n{cot.text}"), add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(_PLAIN.format(cot=cot.text), split_special_tokens=True)["input_ids"]
        ids = ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
    length = len(tokenizer(cot.text, add_special_tokens=False)["input_ids"])
    streams = ((study.how.seed, NAME, cot.example.id, cot.number),)
    return SampleRequest(tuple(ids), streams), int(_LONGER * length) + _MORE


def _said(setup: Setup, drawn: Any, budget: int) -> _Said:
    """The whole batch has the largest budget; a reply has its own."""
    ended = drawn.ended and len(drawn.ids) <= budget
    return setup.prompter.text(drawn.ids[:budget]).strip(), None if ended else "cut off"


# -------------------------------------------------------------------------------------------------------------- judging


def _judged(cot: StudyCot, text: str, became: str | None) -> Reply:
    return Reply(text, became or fault(cot.text, text, cot.example.question))


def fault(cot: str, reworded: str, question: str) -> str | None:
    """Why a rewording is no paraphrase (one of `REASONS`): it is empty, has other numbers than the CoT, or lacks one of its names.

    Numbers are compared by value, whether written as numerals or as words, however often each stands there.
    """
    if not reworded.strip():
        return "empty"
    if _values(cot) != _values(reworded):
        return "numbers"
    missing = [name for name in names_in(cot, question) if name not in reworded]
    return "names" if missing else None


def _values(text: str) -> set[str]:
    return {span.value for span in numbers(digitize_numbers(text, Fraction(1), np.random.default_rng(0), None))}


# ----------------------------------------------------------------------------------------------------------------- kept


def _key(study: Study, cot: StudyCot) -> tuple[Hashable, ...]:
    digest = hashlib.blake2b(f"{study.how.seed}\x1f{cot.text}".encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return cot.example.id, cot.number, digest


def _file(study: Study, paraphraser: Paraphraser) -> str:
    return f"paraphrases-{study.label.file.removesuffix('.jsonl')}-by-{paraphraser.digest}.jsonl"


def _kept(study: Study, paraphraser: Paraphraser) -> dict[tuple[Hashable, ...], _Said]:
    rows = kept_rows(study.folder / _file(study, paraphraser))
    return {(row["id"], row["cot"], row["digest"]): (row["text"], row["became"]) for row in rows}


def _keep(study: Study, paraphraser: Paraphraser, cots: Sequence[StudyCot], replies: Sequence[_Said]) -> None:
    rows = []
    for cot, (text, became) in zip(cots, replies, strict=True):
        ident, number, digest = _key(study, cot)
        rows.append({"id": ident, "cot": number, "digest": digest, "by": paraphraser.name, "text": text, "became": became})
    open_folder(study.folder).append(_file(study, paraphraser), rows)
