"""Findings about a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["fails", "warn"]


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One setting, or several together, with a known outcome. `fails`: training stops, or nothing can be learned."""

    name: str  # stable: programs may read it
    level: Level
    what: str  # the settings and what comes of them
    change: str
    source: str  # an address, or a page of our documentation

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "level": self.level, "what": self.what, "change": self.change, "source": self.source}


@dataclass(frozen=True, slots=True)
class Checked:
    """One configuration: `fails` if any finding does, `warn` if there is another, otherwise `clear`."""

    path: str
    framework: str
    settings: int  # how many were read
    findings: tuple[CheckFinding, ...]
    unread: tuple[str, ...] = ()  # settings that are there and whose value could not be known

    @property
    def verdict(self) -> Literal["fails", "warn", "clear"]:
        levels = {finding.level for finding in self.findings}
        return "fails" if "fails" in levels else "warn" if levels else "clear"

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "path": self.path, "framework": self.framework, "verdict": self.verdict, "settings": self.settings,
            "findings": [finding.as_json() for finding in self.findings], "unread": list(self.unread),
        }  # fmt: skip


def worst_first(findings: Iterable[CheckFinding]) -> tuple[CheckFinding, ...]:
    """Findings in order of gravity, otherwise in the given order."""
    return tuple(sorted(findings, key=lambda finding: finding.level != "fails"))
