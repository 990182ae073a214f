"""What a model's cache can be trusted with: decided once, and said in the log with the reason."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from markovlm.cli.main import main
from markovlm.config.model import Loading, Lora
from markovlm.models import checkpointing, probes
from markovlm.models.load import load_model
from markovlm.models.sequences import Prefilled
from markovlm.rollouts.static import decodes_in_one_shape
from support import tiny

LOGGER = "markovlm.models.probes"


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """No model has been tried before; the log from level INFO on."""
    monkeypatch.setattr(probes, "_tried", {})
    caplog.set_level(logging.INFO, LOGGER)
    return caplog


def test_decisions_are_logged_once(tiny_models: dict[str, Path], untried: pytest.LogCaptureFixture) -> None:
    name = str(tiny_models["llama"])
    for _ in range(2):
        tiny.load(tiny_models["llama"])
    assert untried.messages == [
        f"{name}: models.probes._caching: padded",
        f"{name}: models.probes._takes_back: True",
        f"{name}: models.probes._shares: True",
    ]


def test_an_error_of_our_own_is_in_the_log_and_not_swallowed(
    tiny_models: dict[str, Path], untried: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the model slower, which nobody would notice otherwise; the traceback is there at level DEBUG."""

    def broken(*_: object) -> None:
        raise TypeError("a mistake\nof ours")

    monkeypatch.setattr(Prefilled, "go_on", broken)
    untried.set_level(logging.DEBUG, LOGGER)
    lm = tiny.load(tiny_models["gpt2"])
    assert (lm.caching, lm.takes_back, lm.shares_keys) == ("none", False, False)
    assert f"{lm.name}: prompts of several lengths in one cache: no: TypeError: a mistake of ours" in untried.messages
    assert any(record.exc_info and record.exc_info[0] is TypeError for record in untried.records)


def test_a_cache_that_forgets_is_named_as_the_reason(tiny_models: dict[str, Path], untried: pytest.LogCaptureFixture) -> None:
    lm = tiny.load(tiny_models["gemma3"])
    assert not decodes_in_one_shape(lm)
    for what in ("tokens hidden in the middle of a cache", "decoding in one shape"):
        assert f"{lm.name}: {what}: no: ValueError: {probes.FORGETS}" in untried.messages


def test_a_difference_is_logged_with_its_size(
    tiny_models: dict[str, Path], untried: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = checkpointing.select_layer_rows
    monkeypatch.setattr(checkpointing, "select_layer_rows", lambda layer, rows: select(layer, rows * 0))
    loading = Loading(device="cpu", dtype="float64", gradient_checkpointing=True)
    lm = load_model(str(tiny_models["llama"]), loading, lora=Lora(rank=2, alpha=4))
    assert lm.checkpointing == "whole"
    (size,) = (message for message in untried.messages if "differ by" in message)
    assert re.fullmatch(re.escape(lm.name) + r": logits or states differ by [\d.]+, the largest is [\d.]+", size)
    assert f"{lm.name}: gradient checkpointing with shared prompts: no" in untried.messages


def test_the_command_line_prints_the_log_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("markovlm")
    monkeypatch.setattr(probes, "_tried", {})
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    monkeypatch.setenv("MARKOVLM_LOG", "info")
    assert main(["ask", "embedded", "17+4", "--json"]) == 0
    assert "markovlm.models.probes: embedded: models.probes._caching: padded\n" in capsys.readouterr().err
    monkeypatch.setenv("MARKOVLM_LOG", "loud")
    assert main(["models"]) == 2
    assert capsys.readouterr().err == "markovlm: MARKOVLM_LOG=loud: use debug, info, warning or error\n"
