"""configs/chains: they build, and the paper's definition runs on real Wikipedia text with a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from markovlm.chains.prompter import ChainPrompter
from markovlm.config import build_config, load_yaml
from markovlm.runs.rows import read_rows
from markovlm.runs.setup import prepare
from markovlm.training.loop import train
from support import paths

CONFIGS = Path(__file__).parents[2] / "configs" / "chains"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_builds(path: Path) -> None:
    config = build_config(load_yaml(path), source=str(path))
    assert config.chain.on
    assert config.objective.name == "rloo"


@pytest.mark.data
def test_the_papers_definition_on_wikipedia(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    small = {
        "model": str(tiny_models["llama"]), "data": {"path": str(paths.DATA / "wikipedia" / "wiki.test.raw")},
        "task_options": {"context_tokens": 120, "target_tokens": 40}, "chain": {"steps": 4, "chunk_tokens": 40, "state_tokens": 8},
        "rollouts": {"group_size": 2}, "training": {"steps": 1, "eval_every": 1}, "evaluation": {"dev_size": 2}, "lora": {"rank": 2},
    }  # fmt: skip
    config = build_config(load_yaml(CONFIGS / "wiki.yaml"), small)
    setup = prepare(config)
    assert isinstance(setup.prompter, ChainPrompter)
    text = setup.prompter.text_of(setup.load("train").examples[0])
    assert (len(text.chunks), text.states, text.queries) == (4, 3, ())
    assert (
        "".join(text.chunks).replace(" ", "")
        == f"{text.example.question}{text.example.answer}".replace(" ", "").replace("\n", "")[
            : len("".join(text.chunks).replace(" ", ""))
        ]
    )
    train(config, tmp_path / "run")
    row = read_rows(tmp_path / "run" / "metrics.jsonl")[0]
    assert row["chain_states"] == 3
    assert row["answer_logprob"] < 0
    assert read_rows(tmp_path / "run" / "evals.jsonl")[-1]["accuracy"] is None
