"""SWEEP.yaml: a base configuration, what varies, seeds, and how each run is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from markovlm.config import describe_validation, flatten, load_yaml
from markovlm.config.base import Section
from markovlm.errors import UserError

Values = dict[str, Any]  # dotted configuration key -> value


class Resources(Section):
    """What one run needs."""

    cpus: int = Field(1, ge=1, description="cores and threads of a run")
    gpus: float = Field(0.0, ge=0, le=1, description="share of a GPU; a run uses at most one")


class FinalEvaluation(Section):
    """Each run's `markovlm eval` once it is trained. Without it cells are compared by their last dev evaluation."""

    checkpoint: str = Field("last", description="last, best, or a step that is saved")
    split: str | None = Field(None, description="default data.test_split")
    limit: int | None = Field(None, ge=1, description="questions")
    baseline: bool = Field(False, description="the base model too, once per run")

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _one(cls, value: Any) -> str:
        if value in ("last", "best"):
            return value
        text = "" if isinstance(value, bool) else str(value)
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"must be last, best or a step, got {value!r:.80}")
        return str(int(text))

    @property
    def step(self) -> int | None:
        """The checkpoint's step, if it is given as one."""
        return int(self.checkpoint) if self.checkpoint.isdigit() else None


class StudyDesign(Section):
    """What a sweep is to find out, written before it runs. `make findings` prints it above the study's tables."""

    question: str = Field(min_length=1, description="what is asked")
    design: str = Field(min_length=1, description="what varies, seeds, n")
    decides: str = Field(min_length=1, description="the comparison that answers the question")
    measures: list[str] = Field([], description="measured on every finished run, beside the evaluation")
    rows: list[str] = Field([], description="keys whose combinations are the rows of a table with `columns` across")
    columns: str | None = Field(None, description="the key whose values are the columns of that table")

    @model_validator(mode="after")
    def _both(self) -> StudyDesign:
        if bool(self.rows) != (self.columns is not None):
            raise ValueError("rows and columns belong together: give both or neither")
        return self


class SweepSpec(Section):
    """SWEEP.yaml, validated."""

    base: Values | str = Field({}, description="a configuration, or its path relative to this file")
    matrix: dict[str, list[Any]] = Field({}, description="key -> its values; all combinations are run")
    cells: list[Values] = Field([], description="explicit combinations, besides or instead of the matrix")
    seeds: list[int] | int | None = Field(None, description="seeds of every cell: a list, or how many from 0; default the base's")
    evaluate: FinalEvaluation | None = None
    resources: Resources = Resources()  # pyright: ignore[reportCallIssue]
    retries: int = Field(1, ge=0, description="how often a failed run is continued from its last checkpoint")
    metric: Literal["auto", "accuracy", "logprob"] = Field("auto", description="what cells are compared by")
    reference: Values | None = Field(
        None, description="values that identify one cell, which the others are compared with; default the first"
    )
    study: StudyDesign | None = Field(None, description="the question behind the sweep, its design and what decides")

    @field_validator("matrix")
    @classmethod
    def _values(cls, matrix: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, values in matrix.items():
            if key == "seed":
                raise ValueError("seed: put seeds under `seeds`, so that cells can be paired by them")
            if not values:
                raise ValueError(f"{key}: has no values")
            if any(value in values[:number] for number, value in enumerate(values)):
                raise ValueError(f"{key}: contains a value twice")
        return matrix

    @field_validator("cells")
    @classmethod
    def _flat(cls, cells: list[Values]) -> list[Values]:
        flat = [flatten(cell) for cell in cells]
        for cell in flat:
            if "seed" in cell:
                _require_whole(cell["seed"])
        return flat

    @field_validator("seeds", mode="before")
    @classmethod
    def _whole(cls, seeds: Any) -> Any:
        for seed in cast("list[Any]", seeds) if isinstance(seeds, list) else () if seeds is None else (seeds,):
            _require_whole(seed)
        return seeds

    @field_validator("reference")
    @classmethod
    def _cell(cls, reference: Values | None) -> Values | None:
        flat = None if reference is None else flatten(reference)
        if flat is not None and "seed" in flat:
            raise ValueError("names a seed, but cells are compared over all their seeds; leave it out")
        return flat

    @model_validator(mode="after")
    def _something(self) -> SweepSpec:
        if not self.matrix and not self.cells and self.seeds is None:
            raise ValueError("nothing varies: give `matrix`, `cells` or `seeds`")
        numbers = self.seeds if isinstance(self.seeds, list) else []
        if self.seeds is not None and (self.seeds == [] or self.seeds == 0):
            raise ValueError("seeds: at least one is needed")
        if any(seed < 0 for seed in numbers) or (isinstance(self.seeds, int) and self.seeds < 0):
            raise ValueError("seeds: must be whole numbers from 0")
        if len(set(numbers)) < len(numbers):
            raise ValueError("seeds: contains a seed twice")
        return self

    def seed_list(self, base: Mapping[str, Any]) -> list[Any]:
        """The seeds of every cell; that of the base is as it was given, unchecked."""
        if self.seeds is None:
            return [base.get("seed", 0)]
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)


def _require_whole(seed: Any) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seeds must be whole numbers from 0, got {seed!r:.80}")


def read_spec(path: Path) -> SweepSpec:
    """Raises UserError naming the file and the first wrong key."""
    found = load_yaml(path)
    try:
        return SweepSpec.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            known = ", ".join(SweepSpec.model_fields)
            raise UserError(f"{path}: {first['loc'][0]}: unknown key; a sweep has {known}") from None
        raise UserError(f"{path}: {describe_validation(error)}") from None
