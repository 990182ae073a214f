"""Where results go that belong to no run of ours."""

from __future__ import annotations

import re
from pathlib import Path


def default_store(target: str, task: str) -> Path:
    """Where readings of what is no run of ours are kept: runs/evaluations/NAME-TASK."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target).strip("-.")
    return Path("runs") / "evaluations" / f"{name}-{task}"
