"""Findings that no sweep of their own answers: the guard on all studies' runs, the noise of evaluations, extractors on free text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from study_free_text import free_text
from study_rows import Row, read, study_files
from study_text import markdown, share

from markovlm.health.monitor import HealthMonitor
from markovlm.intervals import MISSING

SMALL = 30  # questions of the evaluation that is doubted
DRAWS = 2000


# ------------------------------------------------------------------------------------------------------------------- guard


def fell_at(curve: Sequence[Sequence[float]]) -> int | None:
    """The step of the first of the evaluations that stay under half of the best accuracy before, to the end; None where there is none.

    A best under 0.2 is the untrained model's own level: nothing to lose.
    """
    for i, (step, _) in enumerate(curve):
        best = max((value for _, value in curve[:i]), default=0.0)
        if best >= 0.2 and all(value < best / 2 for _, value in curve[i:]):
            return int(step)
    return None


def called_by_rows(row: Row) -> int | None:
    """The step at which the monitor, given the run's metric rows and no evaluation, first calls it collapsed; None where it does not."""
    monitor, course = HealthMonitor(), row["course"]
    for at in range(max(map(len, course.values()), default=0)):
        values = {key: column[at] for key, column in course.items() if at < len(column) and column[at] is not None}
        if monitor.update({"step": at + 1, **values}).verdict == "collapsed":
            return at + 1
    return None


def guard() -> str:
    """What the monitor says of every run of the studies from its rows alone, against what became of it by evaluations that it does not see:
    broken is one whose dev accuracy fell under half of its best and stayed there, or whose loss was not finite."""
    body = []
    for name, rows in _all():
        fell = {row["name"]: fell_at(row["curve"]) for row in rows}
        called = {row["name"]: called_by_rows(row) for row in rows}
        broken = [row for row in rows if fell[row["name"]] is not None or row["status"] == "failed"]
        well = [row for row in rows if row not in broken]
        leads = [
            at - step for row in broken if (at := called[row["name"]]) is not None and (step := fell[row["name"]]) is not None
        ]
        body.append(
            [
                name, str(len(rows)), share(sum(called[row["name"]] is not None for row in broken), len(broken)),
                f"{statistics.median(leads):+.0f} ({min(leads):+d} to {max(leads):+d})" if leads else MISSING,
                share(sum(called[row["name"]] is not None for row in well), len(well)),
            ]
        )  # fmt: skip
    return markdown(
        (
            "study",
            "runs",
            "broken runs reported as collapsed",
            "steps after the evaluation that shows it",
            "reported among the others",
        ),
        body,
    )


def _all() -> Iterator[tuple[str, list[Row]]]:
    for path in study_files():
        rows = [row for row in read(path.stem) if row["curve"]]
        if rows:
            yield path.stem, rows


# ------------------------------------------------------------------------------------------------------------------- noise


def evaluation_noise() -> str:
    """How often `SMALL` of the questions name another best checkpoint, or another better run, than all of them do."""
    runs = [row for row in read("twins") if row["measures"].get("checkpoints")]
    rng = np.random.default_rng(0)
    body = []
    for row in runs:
        marks = {int(step): bits(found["anchor"]) for step, found in row["measures"]["checkpoints"].items() if int(step) > 0}
        if len({len(m) for m in marks.values()}) != 1:
            continue
        table = np.stack([marks[step] for step in sorted(marks)])  # [checkpoints, questions]
        wrong, loss = chosen_by_few(table, rng)
        steps, truth = sorted(marks), table.mean(1)
        body.append(
            [
                f"{row['values']['objective.conditioning']}, seed {row['seed']}", str(table.shape[1]),
                f"step {steps[int(truth.argmax())]}: {truth.max():.3f}", f"{wrong:.2f}", f"{loss:.3f}",
            ]
        )  # fmt: skip
    columns = ("run", "questions", "best checkpoint", f"{SMALL} questions name another", "accuracy lost by it, mean")
    return markdown(columns, body) + "\n\n" + _pairs(runs, rng) + "\n\n" + _extractors(runs)


def bits(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8) - ord("0")


def chosen_by_few(table: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """(share of draws of `SMALL` questions whose best checkpoint, the later one on a tie, is not among the best on all questions; mean
    accuracy on all questions that this costs)."""
    truth = table.mean(1)
    lost = []
    for _ in range(DRAWS):
        few = table[:, rng.choice(table.shape[1], SMALL, replace=False)].mean(1)
        picked = len(few) - 1 - int(few[::-1].argmax())
        lost.append(truth.max() - truth[picked])
    return float(np.mean(np.asarray(lost) > 1e-12)), float(np.mean(lost))


def _pairs(runs: Sequence[Row], rng: np.random.Generator) -> str:
    """How often few questions name the wrong one of two runs, by how far apart they are on all questions."""
    ends = [bits(last(row)["anchor"]) for row in runs]
    by_gap: dict[str, list[float]] = {}
    for i, one in enumerate(ends):
        for other in ends[i + 1 :]:
            gap = abs(one.mean() - other.mean())
            if len(one) != len(other) or gap == 0:
                continue
            better = np.sign(one.mean() - other.mean())
            wrong = 0
            for _ in range(DRAWS // 10):
                few = rng.choice(len(one), SMALL, replace=False)
                wrong += np.sign(one[few].mean() - other[few].mean()) != better
            name = "under .02" if gap < 0.02 else ("under .05" if gap < 0.05 else ("under .1" if gap < 0.1 else ".1 and more"))
            by_gap.setdefault(name, []).append(wrong / (DRAWS // 10))
    rows = [
        [name, str(len(found)), f"{np.mean(found):.2f}", f"{min(found):.2f} to {max(found):.2f}"]
        for name in ("under .02", "under .05", "under .1", ".1 and more")
        if (found := by_gap.get(name))
    ]
    return markdown(
        ("two runs' gap on all questions", "pairs", f"{SMALL} questions name the wrong one, or a tie", "lowest to highest"), rows
    )


def last(row: Row) -> Mapping[str, str]:
    found = row["measures"]["checkpoints"]
    return found[max(found, key=int)]


def _extractors(runs: Sequence[Row]) -> str:
    """Do two extractors order two runs differently?"""
    accuracy = [{name: float(bits(text).mean()) for name, text in last(row).items()} for row in runs]
    turned = pairs = 0
    for i, one in enumerate(accuracy):
        for other in accuracy[i + 1 :]:
            signs = {int(np.sign(one[name] - other[name])) for name in one}
            pairs += 1
            turned += len(signs) > 1
    different = sum(len(set(found.values())) > 1 for row in runs for found in row["measures"]["checkpoints"].values())
    all_of = sum(len(row["measures"]["checkpoints"]) for row in runs)
    return (
        f"Extractors ({', '.join(last(runs[0]))}): another order of two runs in {share(turned, pairs)} pairs; "
        f"any question marked differently in {different} of {all_of} checkpoints."
        if runs
        else ""
    )


DERIVED: Mapping[str, Callable[[], str]] = {"guard": guard, "evaluation_noise": evaluation_noise, "free_text": free_text}
