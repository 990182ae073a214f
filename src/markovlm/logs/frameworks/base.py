"""What a framework of RL post-training calls its metrics and settings, and which knobs its users have.

One record a framework. Readers go from its metric names to ours, advice from our settings to its names; `docs/metrics.md` is written from the
same records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Framework:
    """One framework's names. A log is recognised as its by keys that only it writes, whatever file it is in.

    `keys` is our metric -> its names, the first that a row has counts. `patterns` have one group, the name of a part (a reward function, a
    data source), or none: then the prefix is our whole key. `settings` is our configuration key -> its names for it, the first being the one
    to advise.
    """

    name: str
    keys: Mapping[str, tuple[str, ...]]
    told_by: tuple[str, ...]  # regular expressions; a log with keys that match any of them is of this framework
    patterns: tuple[tuple[str, str], ...] = ()  # (regular expression of their key, our prefix)
    step: tuple[str, ...] = ("step",)
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flag: str = ""  # what stands before a setting on the command line
    knobs: Mapping[str, str] = field(
        default_factory=dict
    )  # knob of `health/advice.py` -> what to do, where it is more than a setting
    notes: Mapping[str, str] = field(default_factory=dict)  # ours -> what this framework means by it
    sources: tuple[str, ...] = ()  # where its makers say so

    @cached_property
    def _told(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.told_by))

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        return [(re.compile(pattern), prefix) for pattern, prefix in self.patterns]

    @cached_property
    def places(self) -> Mapping[str, tuple[str, int]]:
        """Its metric name -> (ours, rank among those that mean the same)."""
        return {name: (ours, rank) for ours, theirs in self.keys.items() for rank, name in enumerate(theirs)}

    def score(self, keys: Iterable[str]) -> int:
        """How many of a log's keys only this framework has."""
        return sum(self._told.fullmatch(key) is not None for key in keys)

    def component(self, key: str) -> str | None:
        """Our name of a part of the reward (a function, a data source) or of an evaluation, or None."""
        for pattern, prefix in self._patterns:
            found = pattern.fullmatch(key)
            if found is not None and not found.groups():
                return prefix
            if found is not None and 0 < len(found[1]) <= 80:
                return prefix + found[1]
        return None

    def setting(self, ours: str) -> str | None:
        """Its name for a setting of ours, as one writes it; None if it has none."""
        names = self.settings.get(ours)
        return self.flag + names[0] if names else None
