"""Does the CoT say what the model does? One number of its second step is changed, and everything that follows from it is recalculated.

The answer can then *follow* the changed CoT (the CoT is load-bearing), stay with the *question* (the gold answer: bypass), or be neither. Asked
with the question hidden and visible. The change is right by construction: every equation of the changed CoT holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markovlm.analysis.changes import Changed, change_number
from markovlm.analysis.fragility import RAW, whole
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import RATE, Study, StudyCot, estimate_some
from markovlm.rollouts.streams import stream
from markovlm.tasks.answers import is_correct

READERS = {"markovian": "question hidden", "non_markovian": "sees the question"}
OUTCOMES = ("follows", "question", "neither")
EXAMPLES = 5  # changed CoTs shown whole


def intervene(study: Study) -> tuple[dict[str, Any], Path]:
    """The three-way table of a study's CoTs; result and where it is kept. Only CoTs with a number to change count."""
    changed = [change_number(cot.text, stream(study.how.seed, "intervention", cot.example.id, cot.number)) for cot in study.cots]
    usable = [
        (cot, one)
        for cot, one in zip(study.cots, changed, strict=True)
        if one is not None and not is_correct(one.result, cot.example.answer, study.setup.task.answer_type)
    ]
    variants = [_variant(study, cot, one, conditioning) for conditioning in READERS for cot, one in usable]
    intact = [whole(study, cot, RAW, conditioning) for conditioning in READERS for cot, _ in usable]
    read = _by_reader(study.read(variants, "CoTs with a number changed"), len(usable))
    before = _by_reader(study.read(intact, "CoTs as they are"), len(usable))
    outcomes = {
        conditioning: [_outcome(study, cot, one, scored) for (cot, one), scored in zip(usable, read[conditioning], strict=True)]
        for conditioning in READERS
    }
    rows = [_row(study, conditioning, usable, outcomes[conditioning], before[conditioning]) for conditioning in READERS]
    each = [
        {"id": cot.example.id, "cot": cot.number, **{READERS[conditioning]: found[i] for conditioning, found in outcomes.items()}}
        for i, (cot, _) in enumerate(usable)
    ]
    examples = [
        {
            "id": cot.example.id,
            "question": cot.example.question,
            "gold": cot.example.answer,
            "cot": cot.text,
            "changed": one.text,
            "result": one.result,
            "answers": {READERS[conditioning]: read[conditioning][i].extracted for conditioning in READERS},
        }
        for i, (cot, one) in enumerate(usable[:EXAMPLES])
    ]
    counts = {"cots": len(study.cots), "changed": len(usable)}
    result = {**study.header("intervention"), **counts, "rows": rows, "outcomes": each, "examples": examples}
    return result, study.write("intervention", result)


def _by_reader(scored: Sequence[Scored], each: int) -> dict[str, Sequence[Scored]]:
    """Readings made reader by reader, `each` of them."""
    return {conditioning: scored[i * each : (i + 1) * each] for i, conditioning in enumerate(READERS)}


def _variant(study: Study, cot: StudyCot, one: Changed, conditioning: str) -> Variant:
    return Variant(
        cot.example, cot.number, "one number changed", encode_cot(study.setup.prompter, one.text), cot.ids, conditioning
    )


def _outcome(study: Study, cot: StudyCot, one: Changed, scored: Scored) -> str:
    """One of `OUTCOMES`."""
    kind = study.setup.task.answer_type
    if is_correct(scored.extracted, one.result, kind):
        return "follows"
    return "question" if is_correct(scored.extracted, cot.example.answer, kind) else "neither"


def _row(
    study: Study,
    conditioning: str,
    usable: Sequence[tuple[StudyCot, Changed]],
    outcome: Sequence[str],
    before: Sequence[Scored],
) -> dict[str, Any]:
    clusters, seed = [cot.example.id for cot, _ in usable], study.how.seed
    shares = {name: estimate_some([float(found == name) for found in outcome], clusters, seed, RATE) for name in OUTCOMES}
    right = estimate_some([float(bool(one.correct)) for one in before], clusters, seed, RATE)
    return {"reader": READERS[conditioning], "n": len(set(clusters)), "right_before": right, **shares}
