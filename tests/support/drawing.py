"""One helper that draws for all tests of a process: starting Vega and bundling its scripts takes two seconds of every report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from markovlm.report import build, draw
from markovlm.report.draw import Drawers
from markovlm.report.loadbearing import beside
from markovlm.sweeps import page

USERS = (build, beside, page)  # modules that open drawers


class KeptDrawers:
    """As `Drawers`, on one helper that outlives it; what was drawn before is not drawn again."""

    helper: Drawers | None = None
    drawn: dict[str, Future[str]] = {}  # noqa: RUF012  (of all of them)

    def __init__(self, count: int | None = None) -> None:
        if KeptDrawers.helper is None:
            KeptDrawers.helper = Drawers(1)

    def __enter__(self) -> KeptDrawers:
        return self

    def __exit__(self, *_: object) -> None: ...

    def library(self) -> Future[str]:
        return self._once({})

    def svg(self, spec: Mapping[str, Any], config: Mapping[str, Any]) -> Future[str]:
        return self._once({"spec": spec, "config": config})

    def _once(self, request: Mapping[str, Any]) -> Future[str]:
        assert KeptDrawers.helper is not None
        key = json.dumps(request)
        if key not in self.drawn:
            helper = KeptDrawers.helper
            self.drawn[key] = helper.svg(request["spec"], request["config"]) if request else helper.library()
        return self.drawn[key]


@contextmanager
def kept_drawers() -> Iterator[None]:
    """Every report, study and sweep of this process draws with one helper meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for module in USERS:
            assert module.Drawers is draw.Drawers
            patch.setattr(module, "Drawers", KeptDrawers)
        yield
    if KeptDrawers.helper is not None:
        KeptDrawers.helper.__exit__()
        KeptDrawers.helper = None
        KeptDrawers.drawn.clear()
