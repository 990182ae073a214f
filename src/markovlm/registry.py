"""What can be added from outside the package, by name: objectives, rewards, tasks, extractors, perturbations, readers of logs,
samplers, studies.

A `Registry` is a mapping from name to thing. Things come from three places, in this order: the package itself, entry points of
installed distributions (groups `markovlm.objectives`, …), and what a program or a `--plugin` file registers (`markovlm.register`).
Listing names imports nothing: a module is imported when its thing is used. Nothing is replaced: a second thing of the same name is an
error that says where the first one came from.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Generic, TypeVar, cast

from markovlm.errors import UserError

T = TypeVar("T")
OURS = "markovlm"


@dataclass(slots=True)
class _Entry:
    """A thing, or where it is to be imported from."""

    source: str  # who registered it: markovlm, a distribution, a file
    item: Any = None
    target: str | None = None  # "module:attribute", not imported yet


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name, in the order: ours, entry points, registered at run time."""

    def __init__(self, kind: str, ours: Mapping[str, str] | str, plural: str = ""):
        """`ours`: name -> "package.module:attribute", or one such place that holds a dict of things by name."""
        self.kind = kind  # as messages call it: "objective"
        self.group = f"markovlm.{plural or kind + 's'}"  # of entry points
        self.broken: dict[str, str] = {}  # entry point -> why it can't be used
        self._ours = ours
        self._entries: dict[str, _Entry] = {}
        self._scanned = False

    # ---- reading

    def __getitem__(self, name: str) -> T:
        self._scan()
        return cast(T, self._resolved(name, self._entries[name]))

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries

    def find(self, name: str, where: str = "") -> T:
        """The thing of this name. Raises UserError with a suggestion if there is none; `where`: a flag or key, put first in it."""
        if name in self:
            return self[name]
        if name in self.broken:
            raise UserError(f"{where}{self.broken[name]}")
        raise UserError(f"{where}no {self.kind} {name!r}{close_match(name, self)}; there are: {', '.join(self)}")

    def usable(self) -> dict[str, T]:
        """All of them except those whose module fails to import (these are then in `broken`)."""
        found: dict[str, T] = {}
        for name in self:
            try:
                found[name] = self[name]
            except UserError as error:
                if self._entries[name].source == OURS:
                    raise
                self.broken[name] = str(error)
                del self._entries[name]
        return found

    def source(self, name: str) -> str:
        """Where it comes from: `markovlm`, a distribution, or a file."""
        return self._entries[name].source

    # ---- adding

    def add(self, name: str, item: T, source: str, module: str = "") -> None:
        """Register a thing that `module` defines. Raises UserError if another one has the name."""
        if not name or not all(part.isidentifier() for part in name.split("-")):
            raise UserError(f"{source}: {name!r} is not a valid name ({self.kind}): use letters, digits, _ and -")
        self._scan()
        old = self._entries.get(name)
        if old is not None and old.target is not None and old.target.partition(":")[0] == module:
            old.item, old.target = item, None  # its entry point is being imported right now, and the decorator comes first
        if old is not None and self._resolved(name, old) is not item:
            raise UserError(f"{source}: the {self.kind} {name!r} already exists (from {old.source}); choose another name")
        self._entries[name] = old or _Entry(source, item)

    def remove(self, names: Iterable[str]) -> None:
        """Remove what was registered at run time."""
        for name in names:
            if self._entries[name].source == OURS:
                raise UserError(f"the {self.kind} {name!r} is part of markovlm and can't be removed")
            del self._entries[name]

    # ---- entry points

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        self._entries |= self._own_entries()
        for point in sorted(metadata.entry_points(group=self.group), key=lambda p: (p.name, p.value)):
            source = point.dist.name if point.dist is not None else point.value
            if point.name in self._entries:
                old = self._entries[point.name].source
                self.broken[point.name + f" of {source}"] = (
                    f"plug-in {source}: the {self.kind} {point.name!r} already exists (from {old}); its author must rename it"
                )
            else:
                self._entries[point.name] = _Entry(source, target=point.value)

    def _own_entries(self) -> dict[str, _Entry]:
        if not isinstance(self._ours, str):
            return {name: _Entry(OURS, target=f"markovlm.{place}") for name, place in self._ours.items()}
        module, _, attribute = self._ours.partition(":")
        table: Mapping[str, Any] = getattr(importlib.import_module(f"markovlm.{module}"), attribute)
        return {name: _Entry(OURS, item) for name, item in table.items()}

    def _resolved(self, name: str, entry: _Entry) -> Any:
        if entry.target is not None:
            item = self._imported(name, entry)
            entry.item, entry.target = (item if entry.target is not None else entry.item), None
        return entry.item

    def _imported(self, name: str, entry: _Entry) -> Any:
        assert entry.target is not None
        module, _, attribute = entry.target.partition(":")
        if entry.source == OURS:
            return getattr(importlib.import_module(module), attribute)
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # code of somebody else: whatever it raises is told as what it is
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"plug-in {entry.source}: the {self.kind} {name!r} cannot be imported from {entry.target} ({reason:.200})"
            ) from error


def close_match(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'gsm8k'?)`, or nothing."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


OBJECTIVES: Registry[Any] = Registry(
    "objective",
    {
        "grpo": "objectives.grpo:Grpo",
        "rloo": "objectives.rloo:Rloo",
        "dr_grpo": "objectives.dr_grpo:DrGrpo",
        "ema": "objectives.ema:Ema",
        "expert_iteration": "objectives.expert_iteration:ExpertIteration",
        "ppo": "objectives.ppo:Ppo",
        "ppo_frozen_anchor": "objectives.ppo_frozen_anchor:PpoFrozenAnchor",
        "reinforce": "objectives.reinforce:Reinforce",
    },
)
REWARDS: Registry[Any] = Registry(
    "reward",
    {
        "logprob": "rewards.logprob:LogProb",
        "prob": "rewards.prob:Prob",
        "exact_match": "rewards.exact_match:ExactMatch",
        "mean_prob": "rewards.mean_prob:MeanProb",
        "bound": "rewards.bound:Bound",
        "readers": "rewards.readers:Readers",
    },
)
TASKS: Registry[Any] = Registry(
    "task",
    {
        "arithmetic": "tasks.arithmetic:TASK",
        "gsm8k": "tasks.gsm8k:TASK",
        "svamp": "tasks.svamp:TASK",
        "aqua": "tasks.aqua:TASK",
        "mathqa": "tasks.mathqa:TASK",
        "arc": "tasks.arc:CHALLENGE",
        "arc_easy": "tasks.arc:EASY",
        "mmlu": "tasks.mmlu:TASK",
        "wiki": "tasks.wiki:TASK",
        "words": "tasks.words:TASK",
        "custom": "tasks.custom:TASK",
        "ledger": "tasks.ledger:TASK",
        "documents": "tasks.documents:TASK",
    },
)
EXTRACTORS: Registry[Any] = Registry("extractor", "tasks.answers:METHODS")
PERTURBATIONS: Registry[Any] = Registry("perturbation", "analysis.perturb:TABLE")
READERS: Registry[Any] = Registry(
    "reader", {"research_results": "research_logs.results:READER", "research_log": "research_logs.log:READER"}
)
SAMPLERS: Registry[Any] = Registry(
    "sampler", {"hf": "rollouts.hf:build_hf", "vllm": "rollouts.engine:build_vllm", "server": "rollouts.server:build_server"}
)
STUDIES: Registry[Any] = Registry("study", {}, "studies")
ALL: tuple[Registry[Any], ...] = (OBJECTIVES, REWARDS, TASKS, EXTRACTORS, PERTURBATIONS, READERS, SAMPLERS, STUDIES)
