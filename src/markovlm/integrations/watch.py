"""The guard for any training loop that has its metrics as dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markovlm.errors import UserError
from markovlm.health import HealthMonitor, Verdict
from markovlm.logs.dialects import Translator, translator_of
from markovlm.logs.external import numbers_of, step_of
from markovlm.logs.mapping import read_mapping
from markovlm.logs.tables import STEPS

_HELD_OUT = "eval_"


class Watcher:
    """Judges a run while it trains, from the dicts that its loop logs anyway.

        watcher = Watcher()
        ...
        verdict = watcher({"step": step, "reward": 0.4, "kl": 0.02, "completions/mean_length": 212.0})
        if verdict.verdict == "collapsed":
            break

    Keys may be TRL's, verl's, OpenRLHF's, tinker-cookbook's or ours (docs/metrics.md); `columns` names others, ours -> theirs. Values
    may be anything a log may hold; what is not a number is ignored. The judgement is the one that `markovlm diagnose` makes in
    hindsight. `on_change(verdict, before)` is called when the verdict's name changes. Not thread-safe.
    """

    def __init__(
        self, columns: Mapping[str, str] | None = None, on_change: Callable[[Verdict, Verdict | None], None] | None = None
    ) -> None:
        mapping = read_mapping([f"{ours}={theirs}" for ours, theirs in columns.items()]) if columns else None
        self._mapping = mapping
        self._translator = Translator(mapping) if mapping is not None else None
        self._keys: set[str] = set()
        self._on_change = on_change
        self._monitor = HealthMonitor()
        self.verdict: Verdict | None = None

    def __call__(self, metrics: Mapping[str, Any], step: int | None = None) -> Verdict:
        """Take one logged dict and judge all so far. Raises UserError if `metrics` is not a mapping."""
        if not isinstance(metrics, Mapping):
            raise UserError(f"Watcher: metrics must be a dict, not {type(metrics).__name__}")
        numbers = numbers_of(metrics)
        values = self._translate(numbers)
        told = {key: value for key, value in values.items() if not key.startswith(_HELD_OUT)}
        if not told or "train_runtime" in metrics:  # an evaluation, or a last row: nothing new about training
            return self._monitor.verdict()
        if step is None:
            step = step_of(metrics, self._mapping.step if self._mapping is not None else STEPS)
        before = self.verdict
        self._monitor.absorb({**values, "step": None if step is None else float(step)})
        self.verdict = self._monitor.verdict()
        if self._on_change is not None and (before is None or before.verdict != self.verdict.verdict):
            self._on_change(self.verdict, before)
        return self.verdict

    def _translate(self, numbers: Mapping[str, float]) -> dict[str, float]:
        if self._mapping is None and not numbers.keys() <= self._keys and len(self._keys) < 2_000:
            self._keys |= numbers.keys()
            found = translator_of(self._keys)
            before = self._translator
            if before is None or (before.framework, before.families) != (found.framework, found.families):
                self._translator = found
        return {} if self._translator is None else self._translator.row(numbers)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, for a checkpoint of the loop."""
        return {"monitor": self._monitor.state_dict(), "keys": sorted(self._keys)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._monitor.load_state_dict(state["monitor"])
        self._keys = set(state["keys"])
        if self._mapping is None and self._keys:
            self._translator = translator_of(self._keys)
        self.verdict = self._monitor.verdict()
