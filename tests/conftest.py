"""Fixtures that several tests share: tiny models on disk, made once a session.

What imports torch is imported in them: the process that only hands the tests out to the workers would take five seconds for it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from markovlm.plugins import _loaded
from markovlm.registry import ALL

sys.path.insert(0, str(Path(__file__).parent))  # `from support import tiny`, whatever pytest's import mode

from support import costs
from support.paths import DATA, absent

# On a shared machine a slow example says nothing about the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(costs, "costs")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What pytest makes of the assertions of 150 files, six seconds for every worker, is kept even where bytecode is not to be."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


def pytest_collection_finish() -> None:
    """A million objects of torch and transformers stay to the end: each `gc.collect()` of a test would look at them for a quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """`data("gsm8k", "mmlu")` skips where one of these is not in the data folder: before fixtures, and for every test alike."""
    for marker in item.iter_markers("data"):
        missing = absent(marker.args)
        if missing:
            pytest.skip(f"{missing} is not there; set MARKOVLM_DATA")


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Path:
    """The folder of original data files; only for tests whose marker `data` names what they need of it."""
    assert request.node.get_closest_marker("data") is not None, (
        "a test of real files has the marker `data`, or fails where there are none"
    )
    return DATA


@pytest.fixture(scope="session", autouse=True)
def one_drawer() -> Iterator[None]:
    """tests/report/test_report.py has the real ones."""
    from support import drawing

    with drawing.kept_drawers():
        yield


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Architecture -> directory made by save_pretrained: random weights, a character tokenizer."""
    from support import tiny

    root = tmp_path_factory.mktemp("tiny")
    return {name: tiny.save_model(name, root / name) for name in tiny.ARCHITECTURES}


@pytest.fixture(scope="session")
def nano_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models with a vocabulary of four: small enough to enumerate every CoT."""
    from support import tiny

    root = tmp_path_factory.mktemp("nano")
    return {name: tiny.save_nano(root / name, name) for name in ("gpt2", "llama")}


@pytest.fixture(scope="session")
def nano_model(nano_models: dict[str, Path]) -> Path:
    """The one that computes in float64 throughout."""
    return nano_models["gpt2"]


@pytest.fixture(scope="session")
def stories_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real stories260K weights as a Llama checkpoint."""
    from support import stories

    return stories.convert(DATA / "stories260K", tmp_path_factory.mktemp("stories") / "stories260K")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What a test registers is gone after it."""
    before, files = [set(registry) for registry in ALL], dict(_loaded)
    yield
    for registry, names in zip(ALL, before, strict=True):
        registry.remove(set(registry) - names)
    for file in set(_loaded) - set(files):
        sys.modules.pop(_loaded.pop(file), None)
