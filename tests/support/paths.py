"""Where the real data files are; tests that need them skip, with this path, where they are absent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

DATA = Path(os.environ.get("MARKOVLM_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def absent(names: Sequence[str]) -> Path | None:
    """The first of these files or folders of the data folder that is not there, or is an empty folder."""
    if not names:
        raise ValueError('the marker `data` names what is needed of the data folder: data("gsm8k")')
    for path in (DATA / name for name in names):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return path
    return None
