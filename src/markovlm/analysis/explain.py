"""Which tokens, words or sentences of a CoT are load-bearing: exact occlusion.

A unit's drop is `ln pi(a|z) - ln pi(a|z without it)`, nats per answer token. Units are taken out of (or replaced in) the
token ids, so nothing is re-tokenised; all versions of a CoT share what comes before the unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from markovlm.analysis.attribution import Attribution, By, How, UnitDrop, aggregate
from markovlm.analysis.fragility import RAW, whole
from markovlm.analysis.perturb import FILLER
from markovlm.analysis.render import explain_html, resample_html
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import CotKey, Study, StudyCot, open_folder
from markovlm.analysis.units import Unit, joined, units_of
from markovlm.errors import UserError
from markovlm.rollouts.prompter import Prompter
from markovlm.tasks.base import Example

MANNER = ("by", "how", "most")  # what tells results apart that are kept beside each other
EXAMPLES_SHOWN = 8  # of an aggregate; wrong answers first, up to half


@dataclass(frozen=True, slots=True)
class Manner:
    """How a CoT is cut into units, and what is done with each."""

    by: By = "token"
    how: How = "remove"
    most: int | None = None  # units of a CoT; neighbours of a longer one are joined

    def __post_init__(self) -> None:
        if self.by not in get_args(By):
            raise UserError(f"--by {self.by}: must be {', '.join(get_args(By)[:-1])} or {get_args(By)[-1]}")


def explain(study: Study, manner: Manner) -> tuple[dict[str, Any], list[Attribution]]:
    """Attribute every CoT towards the gold answer; over many, the aggregate. Returns JSON and the attributions shown."""
    attributions = attribute(study, study.cots, manner)
    shown = _shown(attributions)
    own = attribute_own(study, [study.cots[i] for i in shown if attributions[i].correct is False], manner)
    pairs = [one for i in shown for one in (attributions[i], own.get(study.cots[i].key)) if one is not None]
    table = aggregate(attributions, study.how.seed) | {"most": manner.most}
    result = {**study.header("explain"), **table, "examples": [a.to_json() for a in pairs]}
    return result, pairs


def explain_one(study: Study, manner: Manner, gold_known: bool = True) -> list[Attribution]:
    """Attribute one question's CoT towards the gold answer and, if the model answers differently, towards its own answer too."""
    cots = study.cots[:1]
    if not gold_known:
        own = attribute_own(study, cots, manner, apart_from_gold=False)
        return [replace(one, gold="", correct=None) for one in own.values()]
    towards_gold = attribute(study, cots, manner)
    own = attribute_own(study, cots, manner) if towards_gold[0].correct is not True else {}
    return [*towards_gold, *own.values()]


def attribute(study: Study, cots: Sequence[StudyCot], manner: Manner) -> list[Attribution]:
    """The drops of each CoT towards the gold answer of its question."""
    read = study.read([whole(study, cot, RAW) for cot in cots], "answers")
    return _attributions(study, [(cot, cot.example, one) for cot, one in zip(cots, read, strict=True)], manner)


def attribute_own(
    study: Study, cots: Sequence[StudyCot], manner: Manner, *, apart_from_gold: bool = True
) -> dict[CotKey, Attribution]:
    """Like `attribute`, towards what the model itself answers; CoTs without an answer, or with the gold one, are left out."""
    read = study.read([whole(study, cot, RAW) for cot in cots], "answers")
    asked: list[tuple[StudyCot, Example, Scored]] = []
    for cot, one in zip(cots, read, strict=True):
        answer = (one.extracted or one.answer or "").strip()
        if answer and not (apart_from_gold and answer == cot.example.answer):
            asked.append((cot, replace(cot.example, answer=answer), one))
    return {cot.key: one for (cot, *_), one in zip(asked, _attributions(study, asked, manner), strict=True)}


def _attributions(study: Study, asked: Sequence[tuple[StudyCot, Example, Scored]], manner: Manner) -> list[Attribution]:
    """`asked`: a CoT, its question with the answer to explain, and the reading of the whole CoT."""
    pieces = [pieces_of(study.setup.prompter, cot.ids) for cot, _, _ in asked]
    units = [units_of(texts, manner.by) for texts in pieces]
    if manner.most is not None:
        units = [joined(own, manner.most) for own in units]
    variants: list[Variant] = []
    for (cot, example, _), own in zip(asked, units, strict=True):
        intact = replace(whole(study, cot, RAW), example=example, write=False)
        prompter = study.setup.prompter
        without = (_without(prompter, cot.ids, unit, manner.how) for unit in own)
        variants += [
            intact,
            *(replace(intact, name=f"{manner.how} {manner.by} {n}", ids=ids) for n, ids in enumerate(without)),
        ]
        if manner.how == "replace":
            beside = (_with_filler(prompter, cot.ids, unit) for unit in own)
            variants += [replace(intact, name=f"filler before {manner.by} {n}", ids=ids) for n, ids in enumerate(beside)]
    scores = iter(study.read(variants, f"CoTs with one {manner.by} out"))
    return [_attribution(one, own, scores, manner) for one, own in zip(asked, units, strict=True)]


def _attribution(
    asked: tuple[StudyCot, Example, Scored], units: Sequence[Unit], scores: Iterator[Scored], manner: Manner
) -> Attribution:
    cot, example, read = asked
    whole_logprob = next(scores).logprob
    length = max(1, len(cot.ids))
    drops = [UnitDrop(unit.text, unit.kind, unit.positions[0] / length, whole_logprob - next(scores).logprob) for unit in units]
    if manner.how == "replace":
        drops = [replace(drop, filler=whole_logprob - next(scores).logprob) for drop in drops]
    return Attribution(
        id=cot.example.id,
        question=cot.example.question,
        gold=cot.example.answer,
        choices=cot.example.choices,
        cot=cot.text,
        answer=read.answer or "",
        extracted=read.extracted,
        correct=read.correct,
        target=example.answer,
        logprob=whole_logprob,
        units=tuple(drops),
        how=manner.how,
        by=manner.by,
    )


def _without(prompter: Prompter, ids: tuple[int, ...], unit: Unit, how: How) -> tuple[int, ...]:
    """The CoT with a unit removed, or replaced by as many tokens of filler."""
    if how == "remove":
        gone = set(unit.positions)
        return tuple(token for position, token in enumerate(ids) if position not in gone)
    changed = list(ids)
    for position, token in zip(unit.positions, _filler(prompter, len(unit.positions)), strict=True):
        changed[position] = token
    return tuple(changed)


def _with_filler(prompter: Prompter, ids: tuple[int, ...], unit: Unit) -> tuple[int, ...]:
    """The CoT with as many tokens of filler before a unit as it has itself: what filler does where nothing is missing."""
    at = unit.positions[0]
    return ids[:at] + _filler(prompter, len(unit.positions)) + ids[at:]


def _filler(prompter: Prompter, tokens: int) -> tuple[int, ...]:
    filler = encode_cot(prompter, FILLER.strip())
    return tuple(filler[nth % len(filler)] for nth in range(tokens))


def pieces_of(prompter: Prompter, ids: tuple[int, ...]) -> list[str]:
    """The text that each token adds; '' for one that only begins a character."""
    pieces: list[str] = []
    known = ""
    for end in range(1, len(ids) + 1):
        text = prompter.text(ids[:end])
        whole_text = text if end == len(ids) else text.rstrip("\N{REPLACEMENT CHARACTER}")
        longer = whole_text.startswith(known)
        pieces.append(whole_text[len(known) :] if longer else "")
        known = whole_text if longer else known
    return pieces


def _shown(attributions: Sequence[Attribution]) -> list[int]:
    """Where a few for people are: wrong ones first, up to half."""
    wrong = [i for i, one in enumerate(attributions) if one.correct is False][: EXAMPLES_SHOWN // 2]
    rest = [i for i, one in enumerate(attributions) if one.correct is not False][: EXAMPLES_SHOWN - len(wrong)]
    return wrong + rest


# ----------------------------------------------------------------------------------------------------------- output


def write_page(study: Study, attributions: Sequence[Attribution], result: dict[str, Any] | None, manner: Manner) -> Path:
    """The HTML page of an explanation, beside the other results."""
    what = "all" if result is not None else _digest(attributions[:1])
    return _written(study, f"explain-{manner.by}-{manner.how}-{what}", lambda title: explain_html(attributions, result, title))


def write_resampled(study: Study, result: dict[str, Any], found: Sequence[Any]) -> Path:
    """The HTML page of resampled CoTs, beside the other results."""
    return _written(study, f"resample-{_digest(found)}", lambda title: resample_html(result, found[:EXAMPLES_SHOWN], title))


def _written(study: Study, name: str, page: Callable[[str], str]) -> Path:
    folder = open_folder(study.folder)
    file = f"{name}-{study.label.file.removesuffix('.jsonl')}.html"
    folder.write(file, page(f"{study.label.task}, {study.target.checkpoint} of {Path(study.target.name).name}"))
    return folder.path / file


def _digest(found: Sequence[Any]) -> str:
    """A question's id never names a file."""
    ids = "\x1f".join(f"{one.id}\x1f{one.question}" for one in found)
    return hashlib.blake2b(ids.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def find_example(examples: Sequence[Example], wanted: str) -> Example:
    """The question with that id (or the only one whose id ends so). Raises UserError if there is none."""
    found = [e for e in examples if e.id == wanted] or [e for e in examples if e.id.endswith(f"/{wanted}")]
    if len(found) != 1:
        known = ", ".join(example.id for example in examples[:3])
        raise UserError(f"--example {wanted}: no such question; the split has {len(examples)}, such as {known}")
    return found[0]
