"""The runs of a sweep, each with a configuration that was validated before anything starts."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.api.training import base_layer, configure
from markovlm.config import RunConfig, dump_yaml, flatten, merge, nest
from markovlm.errors import UserError
from markovlm.sweeps.spec import SweepSpec, Values

_NAME_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep: a combination of values and a seed."""

    name: str  # its directory's name under DIR/runs: values, seed, and a fingerprint of the whole configuration
    group: str  # the combination without the seed, as people read it: "objective.name=ppo, training.lr=0.001"
    values: Values  # what the combination sets, by dotted key
    seed: int
    config: RunConfig

    def yaml(self) -> str:
        """The whole configuration as YAML."""
        return dump_yaml(self.config)

    def to_json(self) -> dict[str, Any]:
        return {**self.values, "seed": self.seed}


def expand(spec: SweepSpec, path: Path, over: Mapping[str, Any] | None = None) -> list[Cell]:
    """All cells, combination by combination, seeds innermost. `over` is laid over the base (command line, plug-ins).

    Raises UserError naming the combination whose configuration is wrong, or the two that are the same.
    """
    base = base_layer(path.parent / spec.base) if isinstance(spec.base, str) else nest(flatten(spec.base))
    base = merge(base, over or {})
    cells: list[Cell] = []
    seen: dict[str, str] = {}  # what a run is -> the cell that is it
    for values in _combinations(spec):
        group = label(values)
        seeds = [values["seed"]] if "seed" in values else spec.seed_list(base)
        setting = {key: value for key, value in values.items() if key != "seed"}
        for seed in seeds:
            layer = merge(merge(base, nest(setting)), {"seed": seed})
            config = configure(layer, source=f"{path}: cell {group or 'base'}")
            seed = layer["seed"] = config.seed
            run, shown = identity(config), f"{group or 'base'}, seed {seed}"
            if run in seen:
                raise UserError(f"{path}: two cells are the same run: {seen[run]} and {shown}")
            seen[run] = shown
            # of what was written, not of what it comes to: the names of earlier sweeps stay when a default is added
            mark = hashlib.sha256(json.dumps(layer, sort_keys=True, default=str).encode()).hexdigest()[:8]
            cells.append(Cell(_directory_name(setting, seed, mark), label(setting) or "base", setting, seed, config))
    return cells


def identity(config: RunConfig) -> str:
    """A key that is the same for configurations of the same run, however they are written (1e-3 or 0.001, a default or nothing)."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True)


def _combinations(spec: SweepSpec) -> list[Values]:
    crossed = [dict(zip(spec.matrix, values, strict=True)) for values in itertools.product(*spec.matrix.values())]
    return [*(crossed if spec.matrix or not spec.cells else []), *spec.cells]


def label(values: Mapping[str, Any]) -> str:
    """`objective.name=ppo, training.lr=0.001`."""
    return ", ".join(f"{key}={_text(value)}" for key, value in values.items() if key != "seed")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _directory_name(values: Mapping[str, Any], seed: int, mark: str) -> str:
    """The last part of each key, where that is clear enough, with its value, as `in_names` writes them."""
    lasts = [key.removesuffix(".name").rpartition(".")[2] for key in values]
    parts = [f"{last if lasts.count(last) == 1 else key}={_text(values[key])}" for key, last in zip(values, lasts, strict=True)]
    return f"{in_names('_'.join(parts) or 'base').strip('-.')[:_NAME_LENGTH]}_seed={seed}_{mark}"


def in_names(text: str) -> str:
    """With letters that every file system takes: `lr=linear-1e-3---0` of `lr=linear 1e-3 -> 0`."""
    return re.sub(r"[^A-Za-z0-9.=+-]+", "-", text)


def groups_of(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Group -> its cells, in order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    return found
