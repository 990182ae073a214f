"""Runs and models that the studies are tested on, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import studied


@pytest.fixture(scope="session")
def twins(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Markovian and a non-Markovian run; nobody writes into them."""
    return studied.train_twins(tiny_models["gpt2"], tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="session")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tokenizer: bytes, with merges that encoding always makes and sampling does not."""
    return studied.save_bytes(tmp_path_factory.mktemp("bytes") / "model")
