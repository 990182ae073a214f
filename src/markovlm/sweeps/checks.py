"""Checks of a sweep before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.api.training import configure
from markovlm.config import RunConfig, nest
from markovlm.errors import UserError
from markovlm.runs.asking import parts_of, task_of
from markovlm.sweeps.cells import Cell, groups_of, identity, label
from markovlm.sweeps.spec import FinalEvaluation, SweepSpec

_SHOWN = 8  # cells named in an error


def reference_of(spec: SweepSpec, cells: Sequence[Cell], path: Path) -> str:
    """The group that others are compared with: the first, or the one that has the values of `reference`.

    A cell has them if its configuration does, by itself or from the base, in whatever spelling (1e-3 is 0.001). If several do, the one
    that sets these keys and no other. Raises UserError if that leaves none, or several.
    """
    firsts = [members[0] for members in groups_of(cells).values()]
    if spec.reference is None:
        return firsts[0].group
    found, wrong = _with(firsts, spec.reference, f"{path}: reference")
    if len(wrong) == len(firsts):
        raise wrong[0]
    exact = [cell for cell in found if set(cell.values) == set(spec.reference)]
    chosen = found if len(found) == 1 else exact
    if len(chosen) == 1:
        return chosen[0].group
    wanted = label(spec.reference) or "{}"
    if not found:
        raise UserError(f"{path}: reference: no cell has {wanted}; the cells are {_listed(firsts)}")
    raise UserError(f"{path}: reference: {len(found)} cells have {wanted}, name one of them: {_listed(found)}")


def _with(cells: Sequence[Cell], values: Mapping[str, Any], source: str) -> tuple[list[Cell], list[UserError]]:
    """The cells that `values` laid over them leave as they are, and what is wrong with `values` in the others."""
    found: list[Cell] = []
    wrong: list[UserError] = []
    for cell in cells:
        try:
            same = identity(configure(cell.config, over=nest(values), source=source)) == identity(cell.config)
        except UserError as error:
            wrong.append(error)
        else:
            found += [cell] if same else []
    return found, wrong


def _listed(cells: Sequence[Cell]) -> str:
    more = f"; and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""
    return "; ".join(cell.group for cell in cells[:_SHOWN]) + more


def check_evaluation(spec: SweepSpec, cells: Sequence[Cell], path: Path) -> None:
    """Raise UserError naming the first cell that could be trained but not evaluated as `evaluate` says."""
    if spec.evaluate is None:
        return
    for group, members in groups_of(cells).items():
        try:
            _check_split(spec.evaluate, members[0].config)
            _check_checkpoint(spec.evaluate, members[0].config)
        except UserError as error:
            raise UserError(f"{path}: cell {group}: {error}") from None


def _check_split(asked: FinalEvaluation, config: RunConfig) -> None:
    part = next(iter(parts_of(config).values()))  # of several tasks the first is evaluated
    task, split = task_of(part), asked.split or part.data.test_split
    if split not in task.splits:
        key = "evaluate.split" if asked.split else "data.test_split"
        raise UserError(f"{key}: task {task.name} has no split {split!r}; splits: {', '.join(task.splits)}")


def _check_checkpoint(asked: FinalEvaluation, config: RunConfig) -> None:
    steps, every = config.training.steps, config.training.checkpoint_every
    if asked.checkpoint == "best" and not config.training.eval_every:
        raise UserError("evaluate.checkpoint best: training.eval_every is 0, so there is nothing to choose by; use last")
    if asked.step is None:
        return
    if asked.step > steps:
        raise UserError(f"evaluate.checkpoint {asked.step}: training.steps is {steps}")
    if asked.step % every and asked.step != steps:
        raise UserError(
            f"evaluate.checkpoint {asked.step}: this step is not saved with training.checkpoint_every {every} and {steps} steps"
        )


def doubts(spec: SweepSpec, cells: Sequence[Cell]) -> list[str]:
    """What will run but show nothing, or vary two things at once, one line each."""
    silent = sum(not cell.config.training.eval_every for cell in cells)
    found = [f"{silent} of {len(cells)} runs have no score to compare: training.eval_every is 0 and there is no `evaluate`"]
    return [*(found if spec.evaluate is None and silent else ()), *_decoded_apart(cells)]


def _decoded_apart(cells: Sequence[Cell]) -> list[str]:
    """Are the CoTs of all cells decoded alike when they are evaluated?"""
    ways: dict[str, None] = {}
    for cell in cells:
        evaluation, rollouts, steps = cell.config.evaluation, cell.config.rollouts, cell.config.training.steps
        tau = rollouts.temperature.at(steps, steps) if evaluation.temperature == "training" else evaluation.temperature
        ways["greedy" if evaluation.decoding == "greedy" else f"sampled at {tau or 1:g}"] = None
    if len(ways) < 2:
        return []
    return [
        f"cells are evaluated differently ({', '.join(ways)}): set evaluation.decoding or evaluation.temperature once, in the base"
    ]
