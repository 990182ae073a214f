"""A number that may change over training, written in one line: `0.5`, `linear 0.5 -> 1`, `cosine 1.5 -> 0.7 over 200`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORM = re.compile(rf"(linear|cosine)\s+({_NUMBER})\s*->\s*({_NUMBER})(?:\s+over\s+(\d+))?")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Value at step t of N (t = 1..N): from `start` at the first step to `end` at step `over` (default N), then `end`."""

    shape: Literal["constant", "linear", "cosine"]
    start: float
    end: float
    over: int | None = None

    @classmethod
    def constant(cls, value: float) -> Schedule:
        return cls("constant", value, value)

    @classmethod
    def parse(cls, value: Any) -> Schedule:
        """From a number or its text form. Raises ValueError saying what would be right."""
        if isinstance(value, Schedule):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls._finite(cls.constant(float(value)))
        text = str(value).strip()
        if re.fullmatch(_NUMBER, text):
            return cls._finite(cls.constant(float(text)))
        match = _FORM.fullmatch(text)
        if not match:
            raise ValueError(
                f"not a schedule: {text!r:.60}; write a number, `linear A -> B`, `cosine A -> B`, each with `over STEPS` if need be"
            )
        shape, start, end, over = match.groups()
        if over is not None and int(over) < 1:
            raise ValueError("a schedule must go `over` at least 1 step")
        return cls._finite(cls(shape, float(start), float(end), int(over) if over else None))  # type: ignore[arg-type]

    @staticmethod
    def _finite(schedule: Schedule) -> Schedule:
        if not (math.isfinite(schedule.start) and math.isfinite(schedule.end)):
            raise ValueError("a schedule needs finite numbers")
        return schedule

    def at(self, step: int, steps: int) -> float:
        """Value for the update that makes step `step` (1-based) of `steps`."""
        if self.shape == "constant":
            return self.start
        span = max((self.over or steps) - 1, 1)
        progress = min(max(step - 1, 0) / span, 1.0)
        if self.shape == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.end - self.start) * progress

    @property
    def minimum(self) -> float:
        return min(self.start, self.end)

    @property
    def maximum(self) -> float:
        return max(self.start, self.end)

    def __str__(self) -> str:
        if self.shape == "constant":
            return repr(self.start)
        over = f" over {self.over}" if self.over else ""
        return f"{self.shape} {self.start!r} -> {self.end!r}{over}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(cls._serialize)
        )

    @staticmethod
    def _serialize(schedule: Schedule) -> float | str:
        return schedule.start if schedule.shape == "constant" else str(schedule)
