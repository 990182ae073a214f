"""How much perturbing a CoT changes the answer, and how much more it does for one model than for its paired control run.

`drop = ln pi(a|z) - ln pi(a|p(z))`, nats per answer token, for a perturbation p of the CoT z; likewise for accuracy. The
*fragility* is the difference of two models' drops on the same questions, each with its own fresh CoTs. A text-level
perturbation re-tokenises, so both its terms are read after one round trip of the tokenizer; what that round trip does by
itself is reported apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markovlm.analysis.changes import last_result
from markovlm.analysis.paraphrase import NAME as PARAPHRASE
from markovlm.analysis.paraphrase import Reworded
from markovlm.analysis.perturb import PERTURBATIONS, Context, Plan, TokenPool, perturb_ids, perturb_text, token_pool
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import (
    CHANGE,
    CotKey,
    Study,
    StudyCot,
    estimate,
    estimate_some,
    estimates,
    minus,
    share_known,
)
from markovlm.errors import UserError
from markovlm.rollouts.streams import stream
from markovlm.runs.setup import Setup
from markovlm.tasks.answers import is_correct

INTACT, RAW = "intact", "raw"  # after a round trip of the tokenizer; as sampled


@dataclass(frozen=True, slots=True)
class Drop:
    """The drop of one CoT under one perturbation."""

    key: CotKey
    logprob: float
    accuracy: float | None  # 1: the answer was right and is wrong now; -1 the other way round
    changed: bool  # did the perturbation change the CoT at all?
    expected: bool | None = None  # did what should happen? None: nothing was changed, or it can't be known


@dataclass(frozen=True, slots=True)
class Damage:
    """All drops of one model."""

    study: Study
    cells: dict[tuple[str, float], list[Drop]]
    gaps: list[Drop]  # of the tokenizer's round trip
    intact: list[Scored]  # of the study's CoTs as sampled
    reworded: Reworded | None = None  # paraphrases by another model, where there were any

    def intact_summary(self) -> dict[str, Any]:
        """Likelihood and accuracy from undamaged CoTs."""
        return estimates(self.intact, [cot.example.id for cot in self.study.cots], self.study.how.seed)


def measure_damage(study: Study, plan: Plan, reworded: Reworded | None = None) -> Damage:
    """Read every perturbed variant of every CoT of a study. `reworded`: use these paraphrases instead of the rules."""
    pool = pool_of(study.setup) if any(PERTURBATIONS[name].level == "token" for name in plan.perturbations) else None
    todo = plan.cells()
    variants: list[Variant] = []
    for cot in study.cots:
        context = Context(cot.example.question, other_cot(study, cot).text)
        variants += [whole(study, cot, RAW), _round_trip(study, cot)]
        variants += [
            _reworded(study, cot, severity, reworded)
            if reworded is not None and name == PARAPHRASE
            else _damaged(study, cot, name, severity, context, pool)
            for name, severity in todo
        ]
    scored = iter(study.read(variants, "perturbed CoTs"))
    made = iter(variants)
    cells: dict[tuple[str, float], list[Drop]] = {cell: [] for cell in todo}
    gaps: list[Drop] = []
    intact: list[Scored] = []
    for cot in study.cots:
        raw, trip = next(made), next(made)
        read_raw, read_trip = next(scored), next(scored)
        intact.append(read_raw)
        gaps.append(_drop(cot, read_raw, read_trip, raw.ids != trip.ids))
        for cell, drops in cells.items():
            before, ids = (read_raw, raw.ids) if PERTURBATIONS[cell[0]].level == "token" else (read_trip, trip.ids)
            variant, after = next(made), next(scored)
            changed = variant.ids != ids
            expected = _expected(study, cell, variant, before, after) if changed and cell[1] > 0 else None
            drops.append(_drop(cot, before, after, changed, expected))
    return Damage(study, cells, gaps, intact, reworded)


def whole(study: Study, cot: StudyCot, name: str, conditioning: str | None = None) -> Variant:
    """The CoT as it was sampled."""
    return Variant(cot.example, cot.number, name, cot.ids, cot.ids, conditioning or study.conditioning)


def _round_trip(study: Study, cot: StudyCot) -> Variant:
    ids = encode_cot(study.setup.prompter, cot.text)
    return Variant(cot.example, cot.number, INTACT, ids, cot.ids, study.conditioning)


def _damaged(study: Study, cot: StudyCot, name: str, severity: float, context: Context, pool: TokenPool | None) -> Variant:
    """The draw depends on seed, perturbation, question and CoT alone: what a severity damages, every higher one does too."""
    rng = stream(study.how.seed, "perturb", name, cot.example.id, cot.number)
    if PERTURBATIONS[name].level == "token":
        assert pool is not None
        ids = perturb_ids(name, cot.ids, severity, rng, pool)
    else:
        ids = encode_cot(study.setup.prompter, perturb_text(name, cot.text, severity, rng, context))
    return Variant(cot.example, cot.number, f"{name}@{severity:g}", ids, cot.ids, study.conditioning)


def _reworded(study: Study, cot: StudyCot, severity: float, reworded: Reworded) -> Variant:
    """As another model paraphrases it."""
    ids = encode_cot(study.setup.prompter, reworded.text(cot) if severity else cot.text)
    return Variant(cot.example, cot.number, f"{PARAPHRASE}@{severity:g} by another model", ids, cot.ids, study.conditioning)


def other_cot(study: Study, cot: StudyCot) -> StudyCot:
    """The CoT of another question, one with another answer where there is any (else the answer could survive by chance)."""
    others = [other for other in study.cots if other.example.id != cot.example.id]
    apart = [other for other in others if other.example.answer != cot.example.answer] or others or [cot]
    return apart[int(stream(study.how.seed, "other CoT", cot.example.id, cot.number).integers(len(apart)))]


def pool_of(setup: Setup) -> TokenPool:
    """What token-level perturbations draw from: the tokenizer's ordinary tokens."""
    tokenizer = setup.lm.tokenizer
    size = min(setup.lm.vocabulary, len(tokenizer))
    return token_pool([tokenizer.decode([i]) for i in range(size)], {*tokenizer.all_special_ids, *setup.lm.terminators})


def _drop(cot: StudyCot, before: Scored, after: Scored, changed: bool, expected: bool | None = None) -> Drop:
    return Drop(cot.key, before.logprob - after.logprob, minus(before.right, after.right), changed, expected)


def _expected(study: Study, cell: tuple[str, float], variant: Variant, before: Scored, after: Scored) -> bool | None:
    """Did the answer do what it should? Nothing: it is the same. Follow: it is the changed CoT's last result. Degrade: it was right and is wrong."""
    expect = PERTURBATIONS[cell[0]].expect
    if expect is None or before.correct is None or after.correct is None:
        return None
    if expect == "nothing":
        return before.extracted == after.extracted
    if expect == "degrade":
        return not after.correct if before.correct else None
    result = last_result(study.setup.prompter.text(variant.ids))
    return None if result is None else is_correct(after.extracted, result, study.setup.task.answer_type)


# --------------------------------------------------------------------------------------------------------- results


def perturb_result(damage: Damage, against: Damage | None) -> dict[str, Any]:
    """JSON: a row for each perturbation and severity, with the fragility if there is a paired control run."""
    study = damage.study
    gap = {**_estimates(damage.gaps, study.how.seed)["drop_logprob"], "changed": _share(damage.gaps, lambda d: d.changed)}
    named = ("run", "checkpoint", "conditioning", "model")
    whole_header = against.study.header("perturb") if against else {}
    return {
        **study.header("perturb"),
        "against": {key: whole_header[key] for key in named} if against else None,
        "round_trip_gap": gap,
        "intact": damage.intact_summary(),
        "intact_against": against.intact_summary() if against else None,
        "rows": [_row(cell, damage, against) for cell in damage.cells],
    }


def _row(cell: tuple[str, float], damage: Damage, against: Damage | None) -> dict[str, Any]:
    drops, seed = damage.cells[cell], damage.study.how.seed
    row = {
        "perturbation": cell[0],
        "level": PERTURBATIONS[cell[0]].level,
        "severity": cell[1],
        "n": len({drop.key[0] for drop in drops}),
        "changed": _share(drops, lambda drop: drop.changed),
        **_estimates(drops, seed),
        "expect": PERTURBATIONS[cell[0]].expect if cell[1] > 0 else None,
        "as_expected": _as_expected(drops, seed),
        "fragility": None,
        "fragility_accuracy": None,
        **_paraphrases(cell[0], damage),
    }
    if against is None:
        return row
    theirs = {drop.key: drop for drop in against.cells[cell]}
    pairs = [(drop, theirs[drop.key]) for drop in drops if drop.key in theirs]
    differences = [
        Drop(ours.key, ours.logprob - other.logprob, minus(ours.accuracy, other.accuracy), True) for ours, other in pairs
    ]
    found = _estimates(differences, seed)
    twin = _estimates([other for _, other in pairs], seed)
    return row | {"fragility": found["drop_logprob"], "fragility_accuracy": found["drop_accuracy"], "against": twin}


def _paraphrases(name: str, damage: Damage) -> dict[str, Any]:
    """Who wrote them (null: rules), and how many were accepted."""
    if name != PARAPHRASE:
        return {}
    by = damage.reworded
    return {"paraphraser": by and by.by, "paraphrases": by and by.to_json()}


def _as_expected(drops: Sequence[Drop], seed: int) -> dict[str, Any] | None:
    """How often what should happen did, of the CoTs where that can be known; with their questions."""
    return share_known([drop.expected for drop in drops], [drop.key[0] for drop in drops], seed)


def _estimates(drops: Sequence[Drop], seed: int) -> dict[str, Any]:
    clusters = [drop.key[0] for drop in drops]
    within = CHANGE if any(drop.changed for drop in drops) else None  # what is not changed can't change the answer
    return {
        "drop_logprob": estimate([drop.logprob for drop in drops], clusters, seed),
        "drop_accuracy": estimate_some([drop.accuracy for drop in drops], clusters, seed, within),
    }


def _share(drops: Sequence[Drop], flag: Callable[[Drop], bool]) -> float:
    return sum(map(flag, drops)) / len(drops)


def require_twins(study: Study, against: Study) -> None:
    """Raise UserError unless both were asked the same questions."""
    ours, theirs = ({(cot.key, cot.example.question, cot.example.answer) for cot in one.cots} for one in (study, against))
    if ours != theirs:
        raise UserError(f"--against {against.target.name}: was not asked the same questions as {study.target.name}")


def twin_name(against: Study) -> str:
    """A name that distinguishes results against different control runs, for file names."""
    return against.label.file.rsplit("-", 1)[-1].removesuffix(".jsonl")
