"""The settings of another framework's run, as far as its log keeps them, under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markovlm.logs.frameworks import SETTINGS
from markovlm.logs.records import RunData
from markovlm.logs.rows import integer

MAX_TEXT = 200
# Ours that are kept of what others were told; their remaining settings only have names (for advice).
_KEPT = frozenset({
    "model", "seed", "training.lr", "training.steps", "training.max_grad_norm", "objective.name", "objective.kl_weight",
    "objective.entropy_weight", "rollouts.group_size", "rollouts.max_cot_tokens", "rollouts.temperature", "loss_type", "scale_rewards",
    "num_iterations", "clip_high",
})  # fmt: skip


def take_settings(run: RunData, given: Mapping[str, Any]) -> None:
    """Keep the settings that mean something to us; numbers written as text become numbers."""
    flat: dict[str, Any] = {}
    _flatten(given, "", flat, 0)
    for theirs, ours in SETTINGS.items():
        value = flat.get(theirs)
        if value is None or ours not in _KEPT or (ours == "training.steps" and (integer(value) or 0) <= 0):
            continue
        run.config.setdefault(ours, _plain(value))


def _flatten(given: Mapping[str, Any], before: str, out: dict[str, Any], depth: int) -> None:
    for key, value in given.items():
        if len(out) > 5_000:
            return
        name = f"{before}{key}"
        if isinstance(value, Mapping) and depth < 6:
            _flatten(value, f"{name}.", out, depth + 1)
        else:
            out[name] = value


def _plain(value: Any) -> Any:
    if not isinstance(value, str):
        return value if isinstance(value, (int, float, bool)) else str(value)[:MAX_TEXT]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(value, value[:MAX_TEXT])
