"""What commands share."""

from __future__ import annotations

import os
from typing import Any

from markovlm.plugins import loaded_plugins


def rank() -> int:
    """Of this process, as torchrun numbers them."""
    return int(os.environ.get("RANK", "0"))


def with_plugins(over: dict[str, Any]) -> dict[str, Any]:
    """What was loaded with --plugin belongs to the configuration of a run."""
    return {**over, "plugins": list(loaded_plugins())} if loaded_plugins() else over
