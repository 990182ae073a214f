"""Shared by the tests of tasks: where small hand-written files and real files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from markovlm.tasks import get_task
from markovlm.tasks.base import Loaded, LoadRequest

REPOSITORY = Path(__file__).resolve().parents[2]

Load = Callable[..., Loaded]


@pytest.fixture
def fixtures() -> Path:
    return REPOSITORY / "tests" / "fixtures"


@pytest.fixture
def load() -> Load:
    """`load("arc", path, "test", limit=3, subset="easy")`."""

    def run(task: str, data: Path | None, split: str = "test", **settings: Any) -> Loaded:
        fields = {name: settings.pop(name) for name in ("limit", "strict", "disjoint", "tokenizer") if name in settings}
        return get_task(task, settings).load(LoadRequest(split, data, options=settings, **fields))

    return run
