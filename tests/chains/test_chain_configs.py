"""configs/chains: they build, and the paper's definition runs on real Wikipedia text with a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from markovlm.chains.prompter import ChainPrompter
from markovlm.config import build_config, load_yaml, nest
from markovlm.errors import UserError
from markovlm.runs.rows import read_rows
from markovlm.runs.setup import prepare
from markovlm.training.loop import train

CONFIGS = Path(__file__).parents[2] / "configs" / "chains"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_builds(path: Path) -> None:
    config = build_config(load_yaml(path), source=str(path))
    assert config.chain.on
    assert config.objective.name == "rloo"


RLPR = {"objective.name": "rloo", "objective.reward": "mean_prob", "objective.actor_reward_weight": 0}
NOTES = {"task": "documents", "chain.kind": "notes_then_questions"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"chain.gamma": 0.5}, "chain: gamma has no effect without chain.kind"),
        ({"chain.kind": "notes", "chain.reward": "answer"}, "chain: reward=answer needs questions"),
        ({"chain.kind": "notes", "chain.steps": 1}, "chain: steps must be at least 2 with reward=next_chunk"),
        ({"chain.kind": "thinking"}, "chain: steps is needed with kind=thinking"),
        ({"chain.kind": "thinking", "chain.steps": 2, "chain.reward": "both"}, "chain: reward=both needs chunks of a text"),
        ({"chain.kind": "thinking", "chain.steps": 2, "chain.chunk_tokens": 9}, "chain: chunk_tokens has no effect with kind=thinking"),
        ({"chain.kind": "sonnet"}, "chain.kind: "),
        ({**NOTES, "chain.gamma": 0}, "chain.gamma: "),
        ({**NOTES, "objective.name": "rloo", "prompt.mention_budget": False}, "prompt.mention_budget=false has no effect in a chain"),
        ({**NOTES, "objective.name": "ema"}, "objective.name=ema can't train chains"),
        ({**NOTES, "objective.name": "expert_iteration"}, "objective.name=expert_iteration can't train chains"),
        (
            {**NOTES, "objective.name": "rloo", "objective.reward": "readers", "objective.readers": ["actor"]},
            "objective.reward=readers can't train chains",
        ),
        ({**NOTES, **RLPR, "objective.reward_options.debias": True}, "objective.reward_options.debias must be false in a chain"),
        (
            {**NOTES, **RLPR, "objective.reward_options.debias": False, "objective.reward_options.std_filter": 0.5},
            "objective.reward_options.std_filter must be 0 in a chain",
        ),
        (
            {**NOTES, "objective.name": "rloo", "chain.state_tokens": 3, "rollouts.max_cot_tokens": 4},
            r"chain.state_tokens \(3\) and rollouts.max_cot_tokens \(4\) are the same budget",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_fails_at_construction(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        build_config(nest({"model": "embedded", **keys}))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.data("wikipedia")
def test_the_papers_definition_on_wikipedia(real: Path, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    small = {
        "model": str(tiny_models["llama"]), "data": {"path": str(real / "wikipedia" / "wiki.test.raw")},
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
