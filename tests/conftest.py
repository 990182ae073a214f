"""Fixtures that several tests share: tiny models on disk, made once a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from markovlm.plugins import _loaded
from markovlm.registry import ALL

sys.path.insert(0, str(Path(__file__).parent))  # `from support import tiny`, whatever pytest's import mode

from support import stories, tiny
from support.paths import ABSENT, DATA

# On a shared machine a slow example says nothing about the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Architecture -> directory made by save_pretrained: random weights, a character tokenizer."""
    root = tmp_path_factory.mktemp("tiny")
    return {name: tiny.save_model(name, root / name) for name in tiny.ARCHITECTURES}


@pytest.fixture(scope="session")
def nano_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models with a vocabulary of four: small enough to enumerate every CoT."""
    root = tmp_path_factory.mktemp("nano")
    return {name: tiny.save_nano(root / name, name) for name in ("gpt2", "llama")}


@pytest.fixture(scope="session")
def nano_model(nano_models: dict[str, Path]) -> Path:
    """The one that computes in float64 throughout."""
    return nano_models["gpt2"]


@pytest.fixture(scope="session")
def stories_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real stories260K weights as a Llama checkpoint."""
    source = DATA / "stories260K"
    if not source.is_dir():
        pytest.skip(ABSENT)
    return stories.convert(source, tmp_path_factory.mktemp("stories") / "stories260K")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What a test registers is gone after it."""
    before, files = [set(registry) for registry in ALL], dict(_loaded)
    yield
    for registry, names in zip(ALL, before, strict=True):
        registry.remove(set(registry) - names)
    for file in set(_loaded) - set(files):
        sys.modules.pop(_loaded.pop(file), None)
