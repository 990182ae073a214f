"""A configuration of another framework as the rules see it: settings under its own names, with defaults for what it does not set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markovlm.logs.frameworks import Framework

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off", "none", "null", "")


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What will be run. `unread` are settings that are only known at run time: no rule judges them."""

    framework: Framework
    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    unread: frozenset[str] = frozenset()
    processes: int | None = None  # of the trainer, where it is known

    def value(self, name: str) -> Any:
        """The value of a setting; None if it is not known."""
        if name in self.unread:
            return None
        value = self.given.get(name)
        return self.defaults.get(name) if value is None else value

    def number(self, name: str) -> float | None:
        """A finite number, or None."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return value if math.isfinite(value) else None

    def on(self, name: str) -> bool:
        """Whether it is switched on."""
        value = self.value(name)
        return value.strip().lower() in _TRUE if isinstance(value, str) else bool(value)

    def off(self, name: str) -> bool:
        """Whether it is known to be switched off."""
        value = self.value(name)
        return value is not None and (value.strip().lower() in _FALSE if isinstance(value, str) else not value)

    def says(self, *names: str) -> str:
        """`beta=0 (default), num_iterations=4`."""
        return ", ".join(self._says(name) for name in names)

    def _says(self, name: str) -> str:
        value = self.value(name)
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return f"{self.framework.flag}{name}={text:.60}" + ("" if self.given.get(name) is not None else " (default)")
