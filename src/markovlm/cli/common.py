"""What commands share."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any


def defaults_of(model: str) -> dict[str, Any]:
    from markovlm.models.registry import model_defaults

    return model_defaults(model)


def new_run_directory(label: str) -> Path:
    """runs/LABEL-DATE-TIME-XXXX"""
    return Path("runs") / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def rank() -> int:
    """Of this process, as torchrun numbers them."""
    return int(os.environ.get("RANK", "0"))
