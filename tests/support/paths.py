"""Where the real data files are; tests that need them skip, with this path, where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("MARKOVLM_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
ABSENT = f"{DATA} is not there; set MARKOVLM_DATA"
