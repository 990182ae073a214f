"""What each test costs in processor time: limited where a test has no marker for it, and written down where that is asked for.

Processor time, of this process and of those that it waited for, and not the clock: on a busy machine a test waits without being slow.
The hooks are those of `conftest.py`.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

LIMIT = 10.0  # seconds of the call of an unmarked test, where `yardstick` takes REFERENCE
REFERENCE = 0.04
MARKS = ("slow", "browser", "long", "real", "trl", "quant", "vllm")  # what `make test` leaves out
FILE = "MARKOVLM_DURATIONS"  # environment variable: where the costs are added; .ci/run sets it
_cost = pytest.StashKey[dict[str, float]]()
_all: dict[str, dict[str, float]] = {}  # test -> phase -> seconds; in the process that gives the tests out


def spent() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def yardstick() -> float:
    """Seconds of processor time of a piece of work that is always the same: how slow this machine is now."""
    start = time.process_time()
    numbers = {i: str(i) for i in range(200_000)}
    assert sum(len(text) for text in numbers.values()) == 1_088_890
    return time.process_time() - start


def complaint(seconds: float, marks: Iterable[str]) -> str | None:
    """What is wrong with a test whose call took so long; None where nothing is."""
    if seconds <= LIMIT or set(MARKS) & set(marks):
        return None
    limit = LIMIT * max(1.0, yardstick() / REFERENCE)
    if seconds <= limit:
        return None
    return f"{seconds:.1f} s of processor time, the limit for a test without the marker slow is {limit:.1f}: make it cheaper, or mark it"


def _phase(item: pytest.Item, phase: str) -> Generator[None, Any, Any]:
    start = spent()
    try:
        return (yield)
    finally:
        item.stash.setdefault(_cost, {})[phase] = spent() - start


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _phase(item, "setup"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield from _phase(item, "call")
    said = complaint(item.stash[_cost]["call"], (marker.name for marker in item.iter_markers()))
    if said is not None:
        pytest.fail(said, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _phase(item, "teardown"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.cost = item.stash.get(_cost, {}).get(report.when, 0.0)  # type: ignore[attr-defined]  (xdist sends it along)
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _all.setdefault(report.nodeid, {})[str(report.when)] = getattr(report, "cost", 0.0)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The dearest tests first, behind what earlier commands of the same run of tests have written."""
    path = os.environ.get(FILE)
    if not path or hasattr(session.config, "workerinput") or not _all:
        return
    totals = {test: sum(phases.values()) for test, phases in _all.items()}
    lines = [f"# {session.config.option.markexpr or 'all'}: {len(totals)} tests, {sum(totals.values()):.0f} s of processor time"]
    lines += [
        f"{totals[test]:8.2f} {_all[test].get('call', 0.0):8.2f}  {test}" for test in sorted(totals, key=lambda t: -totals[t])
    ]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
