"""The result of `markovlm eval` as one JSON object: every number with its n, interval and how it was obtained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markovlm.config import RunConfig
from markovlm.evaluation import compare
from markovlm.evaluation.compare import DIFFERENCE, Selection
from markovlm.evaluation.evaluate import ENDS
from markovlm.evaluation.run import Result, chosen_in_training
from markovlm.intervals import p_text
from markovlm.runs.rows import clean
from markovlm.runs.targets import BASE, Target


def evaluation_report(
    config: RunConfig, results: Sequence[Result], selection: Selection | None, difference: float = DIFFERENCE
) -> dict[str, Any]:
    """`{"task", "n", "results": [{"checkpoint", "extractors", "logprob", "vs_base", …}], "best", …}` (docs/evaluation.md). Rows are
    only compared with the base if it was evaluated alike: same questions, same `how`.
    """
    first = results[0]
    base = _base_of(results, first)
    best = next((r for r in results if selection is not None and r.checkpoint == selection.checkpoint), None) or _only(results)
    report: dict[str, Any] = {
        "task": first.label.task,
        "model": first.label.model,
        "split": first.label.split,
        "data": first.label.data,
        "n": first.evaluation.n,
        "results": [_row(result, _base_of(results, result), config.seed) for result in results],
        "best": best.checkpoint if best is not None and best.checkpoint != BASE else None,
        "selection": None if selection is None else selection.to_json(),
        "power": compare.power(first.evaluation, difference),
        "references": compare.reference_rows(
            first.label.task,
            first.label.model,
            base.evaluation if base else None,
            (best.checkpoint, best.evaluation) if best is not None and best.checkpoint != BASE else None,
        ),
        "skipped": len(first.skipped),
        "notes": _notes(results),
    }
    report["warnings"] = _warnings(report, results, base)
    return clean(report)


def choose(target: Target, results: Sequence[Result], seed: int) -> Selection | None:
    """The best of several checkpoints: chosen on the selection split, or else on the reported one and marked so. None with fewer than
    two, or if they were evaluated in different ways. `target`: any of those that were evaluated.
    """
    trained = [result for result in results if result.checkpoint != BASE]
    if len(trained) < 2 or len({result.label.comparable for result in trained}) > 1:
        return None
    first = trained[0]
    reported = {result.checkpoint: result.evaluation for result in trained}
    own = first.label.task == target.config.task and not first.label.whole_files
    steps = [result.step for result in trained]
    rows = chosen_in_training(target, steps, first.label.split, first.evaluation.how) if own else None
    dev = target.config.data.dev_split
    if rows is not None:
        return compare.select(reported, {r.checkpoint: rows[r.step] for r in trained}, dev, "training", False, seed)
    if all(result.dev is not None for result in trained):
        chosen = {result.checkpoint: result.dev.summary() for result in trained if result.dev is not None}
        return compare.select(reported, chosen, dev, "now", False, seed)
    chosen = {name: evaluation.summary() for name, evaluation in reported.items()}
    return compare.select(reported, chosen, first.label.split, "reported", True, seed)


def _only(results: Sequence[Result]) -> Result | None:
    trained = [result for result in results if result.checkpoint != BASE]
    return trained[0] if len(trained) == 1 else None


def _base_of(results: Sequence[Result], result: Result) -> Result | None:
    """The base evaluated on the same questions in the same way."""
    same = (r for r in results if r.checkpoint == BASE and r.label.comparable == result.label.comparable)
    return next(same, None)


def _row(result: Result, base: Result | None, seed: int) -> dict[str, Any]:
    summary = result.evaluation.summary()
    compared = base is not None and result is not base
    return {
        "checkpoint": result.checkpoint,
        "step": None if result.checkpoint == BASE else result.step,
        "task": result.label.task,
        "data": result.label.data,
        "split": result.label.split,
        "n": summary["n"],
        "extractors": summary["extractors"],
        "logprob": summary["logprob"],
        "logprob_ci95": compare.logprob_interval(result.evaluation, seed),
        **{name: summary[name] for name in ENDS},
        "failures": summary["failures"],
        "vs_base": compare.paired(result.evaluation, base.evaluation, seed) if compared and base is not None else None,
        "how": summary["how"],
    }


def _notes(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(note for result in results for note in result.notes))


def _warnings(report: dict[str, Any], results: Sequence[Result], base: Result | None) -> list[str]:
    """What a reader must not overlook, one line each."""
    found: list[str] = []
    ways = {result.label.comparable for result in results}
    if len(ways) > 1:
        found.append(
            f"rows were obtained in {len(ways)} different ways (`how`, split or data): compare only rows of the same table"
        )
    if report["skipped"]:
        found.append(f"{report['skipped']} malformed rows were left out, the first: {results[0].skipped[0]}")
    other = [row for row in report["results"] if row["n"] != report["n"]]
    found += [f"{row['checkpoint']} was evaluated on {row['n']} questions, not {report['n']}" for row in other]
    found += _of_power(report["power"])
    if base is not None:
        found += _of_differences(report["results"], base)
    found += _of_selection(report["selection"])
    return found


def _of_power(power: dict[str, Any] | None) -> list[str]:
    if power is None or power["enough"]:
        return []
    return [
        f"n = {power['n']} is too small to show a difference of {power['difference']:.2g} in accuracy: about {power['needed']:,} "
        f"questions would (80 % power); this n shows differences of about {power['detectable']:.2f} and more"
    ]


def _of_differences(rows: Sequence[dict[str, Any]], base: Result) -> list[str]:
    """Checkpoints that answer differently from the base, yet not significantly so."""
    unclear: list[str] = []
    for row in rows:
        paired = row["vs_base"]
        if paired is None or not (paired["gained"] or paired["lost"]) or compare.differs(paired):
            continue
        needed = compare.needed_for(paired, base.evaluation)
        more = f"; about {needed:,} questions would show it if it is real" if needed and needed > paired["n"] else ""
        numbers = f"{paired['accuracy']:+.3f}, McNemar p = {p_text(paired['mcnemar_p'])}, n = {paired['n']}"
        unclear.append(f"{row['checkpoint']} ({numbers}{more})")
    return [f"not significantly different from the base: {', '.join(unclear)}"] if unclear else []


def _of_selection(selection: dict[str, Any] | None) -> list[str]:
    if selection is None:
        return []
    found: list[str] = []
    if selection["optimistic"]:
        found.append(
            f"the best checkpoint's number is optimistic: {selection['checkpoint']} was chosen among {selection['among']} checkpoints "
            f"on the same {selection['split']} questions that are reported"
        )
    if selection["told_apart"] is False:
        found.append(f"best ({selection['checkpoint']}) and second best ({selection['second']}) are not significantly different")
    return found
