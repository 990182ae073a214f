"""The numbers of an audit: values by CoT, their means over questions, and what is in the JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markovlm.analysis.scoring import Scored
from markovlm.analysis.study import CHANGE, RATE, estimate_some, estimates, gains, minus
from markovlm.auditing.legibility import Legible, legibility
from markovlm.auditing.plan import AuditCot
from markovlm.auditing.reading import GroupRead, ReaderRead
from markovlm.tasks.folds import normalized
from markovlm.tasks.numbers import normalize_number

MEASURES: dict[str, str] = {
    "logprob": "ln pi(answer | CoT), nats per answer token",
    "accuracy": "right from the CoT alone",
    "with_choices_accuracy": "right from the CoT, the choices visible",
    "question_alone_accuracy": "right from the question alone",
    "both_accuracy": "right from question and CoT",
    "reasoned_accuracy": "right from the CoT, and still right when it is cut before the answer first appears",
    "reasoned_logprob": "ln pi(answer) from the CoT or from the part before its answer, whichever is lower",
    "stated": "the answer is stated in the CoT",
    "bits_per_character": "of the CoT, given the question",
    "nonwords": "share of words that are not spelled like English",
    "switches": "changes of script per 100 words",
    "truncated": "cut off, according to the source",
    "open_end": "ends without a full stop",
    "repetitive": "repeats itself",
    "words": "words",
}


_AROUND_AN_ANSWER = re.compile(
    r"(?i)\b(?:so|thus|therefore|the|final|answer|option|choice|is)\b|\\boxed|[\s:=$*#()\\{}\[\]]|\.(?!\d)"
)


@dataclass(frozen=True, slots=True)
class Values:
    """One measure of one group: a value and a question per CoT. None if there is no value."""

    values: Sequence[float | None]
    questions: Sequence[str]
    within: tuple[float, float] | None = None  # what a value can be, of shares

    def by_question(self) -> dict[str, float]:
        """Means over the CoTs of each question."""
        found: dict[str, list[float]] = {}
        for value, question in zip(self.values, self.questions, strict=True):
            if value is not None and math.isfinite(value):
                found.setdefault(question, []).append(value)
        return {question: sum(own) / len(own) for question, own in found.items()}

    def estimate(self, seed: int) -> dict[str, Any] | None:
        """Mean and interval over questions."""
        there = [v if v is not None and math.isfinite(v) else None for v in self.values]
        found = estimate_some(there, self.questions, seed, self.within)
        low, high = (None, None) if found is None else found["ci95"]
        if found is not None and self.within is None and low == high:  # all the same: nothing is known of their spread
            found["ci95"] = [None, None]
        return found


def reader_values(read: GroupRead) -> dict[str, Values]:
    """Measures that depend on the reader, by name."""
    questions = [cot.example.id for cot in read.cots]

    def values(found: Sequence[float | None], within: tuple[float, float] | None = None) -> Values:
        return Values(found, questions, within)

    def rights(scored: Sequence[Scored]) -> Values:
        return values([one.right for one in scored], RATE)

    counted = counted_readings(read)
    made = {
        "logprob": values([one.logprob for one in read.alone]),
        "accuracy": rights(read.alone),
        **({"with_choices_accuracy": rights(read.with_choices)} if read.with_choices else {}),
        "question_alone_accuracy": rights(read.question),
        "both_accuracy": rights(read.both),
        "reasoned_accuracy": rights(read.reasoned),
        "reasoned_logprob": values([one.logprob for one in read.reasoned]),
        CARRIED["accuracy"]: values([minus(a.right, b.right) for a, b in zip(counted, read.baseline, strict=True)], CHANGE),
        CARRIED["logprob"]: values([a.logprob - b.logprob for a, b in zip(counted, read.baseline, strict=True)]),
    }
    if read.text:
        bits = [_bits(score, cot.text) for (score, _), cot in zip(read.text, read.cots, strict=True)]
        made["bits_per_character"] = values(bits)
    return made


def _bits(logprob: float, text: str) -> float | None:
    return -logprob / math.log(2) / len(text) if text and math.isfinite(logprob) else None


def reader_entry(read: ReaderRead, group: str, seed: int) -> dict[str, Any]:
    """One reader's numbers for one group."""
    own = read.groups[group]
    questions = [cot.example.id for cot in own.cots]

    def pair(scored: Sequence[Scored]) -> dict[str, Any]:
        return estimates(scored, questions, seed)

    def gain(scored: Sequence[Scored], over: Sequence[Scored]) -> dict[str, Any]:
        return gains(scored, over, questions, seed)

    def only_answer(scored: Sequence[Scored]) -> dict[str, str | None]:
        return {"only_answer": _only_answer(own, scored)}

    choices: dict[str, Any] = {}
    if own.with_choices:
        choices["with_choices"] = pair(own.with_choices)
        choices["choices_alone"] = pair(own.choices_alone) | only_answer(own.choices_alone)
    return {
        "reader": read.reader,
        "n": len(set(questions)),
        **pair(own.alone),
        "question_alone": pair(own.question),
        "both": pair(own.both),
        "nothing": pair(own.nothing) | only_answer(own.nothing),
        **choices,
        "gain": gain(own.alone, own.nothing),
        "carried": gain(counted_readings(own), own.baseline),
        "reasoned": pair(own.reasoned),
        "reasoned_gain": gain(own.reasoned, own.baseline),
        **({"text": _text_entry(own, questions, seed)} if own.text else {}),
    }


CARRIED = {"accuracy": "carried_accuracy", "logprob": "carried_logprob"}  # values that groups are ordered by
_FEW = 5  # questions below which that all answers are one says nothing


def counted_readings(own: GroupRead) -> list[Scored]:
    """The CoTs as they are read, those that are bare answers counted as nothing."""
    bare = [is_bare(cot.text, cot.example.answer) for cot in own.cots]
    return [_uncounted(n, a) if b else a for a, n, b in zip(own.as_read, own.baseline, bare, strict=True)]


def _only_answer(own: GroupRead, scored: Sequence[Scored]) -> str | None:
    """The answer that a control gives to every question, of which there are several; None if answers differ."""
    said = {
        cot.example.id: one.extracted if one.extracted is not None else one.answer
        for cot, one in zip(own.cots, scored, strict=True)
    }
    answers = set(said.values())
    return (answers.pop() or "").strip() or None if len(said) >= _FEW and len(answers) == 1 else None


def _uncounted(nothing: Scored, alone: Scored) -> Scored:
    """What a bare answer counts as: wrong, and as likely as without any CoT."""
    return Scored(nothing.logprob, correct=None if alone.correct is None else False)


def _text_entry(own: GroupRead, questions: Sequence[str], seed: int) -> dict[str, Any]:
    """Perplexity over all tokens of the group, and bits per character, which readers of other tokenizers can be compared in."""
    scored = [(score, tokens) for score, tokens in own.text if tokens and math.isfinite(score)]
    tokens = sum(n for _, n in scored)
    return {
        "perplexity": math.exp(-math.fsum(s for s, _ in scored) / tokens) if tokens else None,
        "bits_per_character": reader_values(own)["bits_per_character"].estimate(seed),
        "tokens": tokens,
    }


# ------------------------------------------------------------------------------------------------------------ the texts


def text_values(cots: Sequence[AuditCot], stated: Callable[[AuditCot], bool]) -> dict[str, Values]:
    """Measures that need no reader, by name."""
    questions = [cot.example.id for cot in cots]
    read = [legibility(cot.text) for cot in cots]

    def values(value: Callable[[Legible], float | None]) -> Values:
        return Values([value(one) for one in read], questions)

    def shares(found: Sequence[bool | None]) -> Values:
        return Values([None if one is None else float(one) for one in found], questions, RATE)

    return {
        "stated": shares([stated(cot) for cot in cots]),
        "nonwords": values(lambda one: one.nonwords / one.judged if one.judged else None),
        "switches": values(lambda one: 100 * one.switches / one.words if one.words else None),
        "truncated": shares([cot.row.truncated for cot in cots]),
        "open_end": shares([one.open_end for one in read]),
        "repetitive": shares([one.repetitive for one in read]),
        "words": values(lambda one: float(one.words)),
        "empty": shares([one.empty for one in read]),
        "bare_answer": shares([is_bare(cot.text, cot.example.answer) for cot in cots]),
        "answer_cut_off": shares([cot.row.cut for cot in cots]),
    }


def is_bare(cot: str, answer: str) -> bool:
    """Whether the CoT is just the gold answer, perhaps with "the answer is"."""
    text = _AROUND_AN_ANSWER.sub("", cot)
    if not text:
        return False
    number = normalize_number(answer)
    if number is not None and normalize_number(text) == number:
        return True
    return normalized(text) == normalized(_AROUND_AN_ANSWER.sub("", answer))


def text_entry(values: Mapping[str, Values], seed: int) -> dict[str, Any]:
    """Means over questions of what needs no reader."""
    return {name: found.estimate(seed) for name, found in values.items()}
