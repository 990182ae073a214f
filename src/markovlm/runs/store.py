"""Where results on models and runs that are not ours are kept."""

from __future__ import annotations

import re
from pathlib import Path


def default_store(target: str, task: str) -> Path:
    """The directory of kept evaluations for what is not a run of ours: runs/evaluations/NAME-TASK."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target).strip("-.")
    return Path("runs") / "evaluations" / f"{name}-{task}"
