"""Programs outside the package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def load(name: str, folder: str = "scripts") -> Any:
    """`scripts/NAME.py` (or of another folder), loaded once; it may import its siblings."""
    if name in sys.modules:
        return sys.modules[name]
    place = str(ROOT / folder)
    sys.path.insert(0, place)
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(place)
    return module
