"""Every shipped configuration is parsed, built and held against METHOD §2's table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from markovlm.api.training import configure
from markovlm.config import RunConfig, build_config, dump_yaml, flatten, load_yaml
from markovlm.models.registry import model_defaults
from markovlm.objectives import build_objective
from markovlm.tasks import get_task
from markovlm.training.plan import plan

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(path for folder in ("seed", "paper", "recommended") for path in (CONFIGS / folder).glob("*.yaml"))

# METHOD §2: CoT tokens, batch (group)
TABLE = {
    "gsm8k": (100, {12}),
    "mmlu": (150, {12, 4}),
    "aqua": (50, {12}),
    "svamp": (50, {12}),
    "arc": (50, {12}),
    "mathqa": (150, {12}),
    "wiki": (50, {16}),
    "arithmetic": (150, {12}),
}
# The seed's analysis, "Task-Specific Variations": batches trained
SEED_STEPS = {
    "gsm8k": 8056, "mmlu-1": 5908, "mmlu-2": 5675, "aqua-1": 8672, "aqua-2": 13195, "svamp-1": 10566, "svamp-2": 16355,
    "arc": 6828, "mathqa": 4393, "wiki": 5195,
}  # fmt: skip
SMALL = "gsm8k-24gb"  # for one card of 24 GB
SEED_TEST = {"gsm8k": 1319, "mmlu": 154, "aqua": 254, "svamp": 30, "arc": 294, "mathqa": None, "wiki": None}


def load(path: Path) -> RunConfig:
    return build_config(load_yaml(path), source=str(path))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def of(folder: str) -> list[Path]:
    return sorted((CONFIGS / folder).glob("*.yaml"))


def test_the_sets_are_complete() -> None:
    assert {path.stem for path in of("seed")} == set(SEED_STEPS)
    assert {path.stem for path in of("paper")} == {path.stem for path in of("recommended")} - {SMALL} == set(TABLE)
    assert len(FILES) == 10 + 2 * len(TABLE) + 1
    assert {path.parent.name for path in CONFIGS.rglob("*.yaml")} == {
        "seed",
        "paper",
        "recommended",
        "embedded",
        "chains",
        "smollm2",
    }


def test_the_configuration_of_the_real_demo_is_what_it_trains() -> None:
    shown = flatten(load_yaml(CONFIGS / "smollm2/words.yaml"))
    made = flatten(configure(over={"model": "smollm2"}).model_dump(mode="json"))
    assert flatten(model_defaults("smollm2")).items() <= shown.items()
    assert flatten(configure(CONFIGS / "smollm2/words.yaml").model_dump(mode="json")) == {**made, "prompt.style": "chat"}


@pytest.mark.parametrize("path", of("smollm2"), ids=name)
def test_the_configurations_of_a_real_model_build_and_say_whether_they_were_run(path: Path) -> None:
    config = configure(path)
    assert (config.model, config.prompt.style, config.lora.rank) == ("smollm2", "chat", 8)
    assert config.objective.actor_reward_weight.maximum == 0
    assert config.training.lr.maximum == 1e-3
    assert config.objective.answer_end == "scored"
    assert build_objective(config.objective) is not None
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(re.match(r"# (MEASURED|NOT RUN)\b", line) for line in comments)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_configuration_builds(path: Path) -> None:
    config = load(path)
    assert build_config(load_yaml(path), {}) == config
    task = get_task(config.task, config.task_options)
    tokens, groups = TABLE[config.task]
    assert config.rollouts.max_cot_tokens == tokens == task.default_cot_tokens
    assert config.rollouts.group_size in (groups if path.parent.name != "recommended" else {32})
    assert config.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert (config.lora.rank, config.lora.alpha, config.lora.targets) == (8, 16, "all-linear")
    assert config.training.max_grad_norm == 1.0
    assert build_objective(config.objective) is not None


@pytest.mark.parametrize("path", FILES, ids=name)
def test_it_comes_back_as_it_was(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "config.yaml"
    copy.write_text(dump_yaml(load(path)), encoding="utf-8")
    assert load(copy) == load(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_value_names_its_source(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r" *[a-z_]+: \S", line)]
    unsourced = [line for line in lines if not line.startswith("task:") and not re.search(r"#.*\[(S|M\d|ours)", line)]
    assert unsourced == []
    written = flatten(load_yaml(path))
    assert len(lines) == len(written)


@pytest.mark.parametrize("path", of("seed"), ids=name)
def test_the_seeds_runs_as_they_were(path: Path) -> None:
    config = load(path)
    objective, rollouts = config.objective, config.rollouts
    assert config.training.steps == SEED_STEPS[path.stem]
    assert config.evaluation.test_size == SEED_TEST[config.task]
    assert rollouts.group_size == {"mmlu-1": 4, "wiki": 16}.get(path.stem, 12)
    assert (rollouts.questions_per_step, rollouts.fixed_length) == (1, True)
    assert rollouts.temperature.at(1, 1) == (1.5 if config.task == "wiki" else 1.0)
    assert (config.prompt.style, config.prompt.answer_header, config.lora.dropout) == ("plain", " Answer: ", 0.1)
    assert config.training.lr.at(1, 1) == 1e-4
    assert (config.training.eval_every, config.training.checkpoint_every) == (0, 1000)
    assert (objective.cot_logprob, objective.reader, objective.conditioning) == ("mean", "actor", "markovian")
    assert objective.actor_reward_weight.maximum == 0  # dead, and the file says so
    assert "dead" in path.read_text(encoding="utf-8")
    assert getattr(objective, "std_floor", 1.0) <= 1e-4
    if config.task == "arc":
        assert (objective.name, objective.kl_weight.maximum) == ("ppo_frozen_anchor", 0)
    else:
        assert (objective.name, objective.kl_weight.at(1, 1)) == ("grpo", 0.1)


@pytest.mark.parametrize("path", of("paper"), ids=name)
def test_the_papers_settings(path: Path) -> None:
    config = load(path)
    assert config.objective.actor_reward_weight.at(1, 1) == 1.0
    assert config.objective.kl_weight.at(1, 1) == 0.1
    assert config.rollouts.temperature.at(1, 1) == (1.5 if config.task == "wiki" else 1.0)
    assert (config.rollouts.fixed_length, config.prompt.style, config.prompt.answer_header) == (True, "plain", " Answer: ")
    assert config.training.lr.at(1, 1) == 1e-4
    if config.task == "wiki":
        assert config.task_options == {"context_tokens": 200, "target_tokens": 100}
    if config.task == "arithmetic":
        assert config.task_options == {"min_terms": 15, "max_terms": 15, "max_value": 99}


@pytest.mark.parametrize("path", of("recommended"), ids=name)
def test_the_seeds_recommendations_are_applied(path: Path) -> None:
    config = load(path)
    steps = config.training.steps
    assert 500 <= config.training.eval_every <= 1000
    assert config.training.checkpoint_every == config.training.eval_every
    assert config.training.lr.maximum == 5e-5
    assert (config.objective.actor_reward_weight.at(1, steps), config.objective.actor_reward_weight.at(steps, steps)) == (
        0.5,
        1.0,
    )
    assert config.rollouts.temperature.at(1, steps) > config.rollouts.temperature.at(steps, steps)
    assert config.evaluation.temperature == config.rollouts.temperature.at(steps, steps)  # one for all dev rows
    assert config.health.policy in ("rollback", "stop")
    assert not config.objective.name.startswith("ppo")
    assert "UNTESTED AT 8B" in path.read_text(encoding="utf-8")


def test_the_one_for_a_small_card_is_the_same_training() -> None:
    """But for how the base is held; and by the estimate it fits."""
    small, large = load(CONFIGS / "recommended" / f"{SMALL}.yaml"), load(CONFIGS / "recommended" / "gsm8k.yaml")
    assert (small.loading.quantization, small.loading.gradient_checkpointing) == ("nf4", True)
    assert small.model_copy(update={"loading": large.loading}) == large
    assert plan(small)["memory"]["cards"]["RTX 4090 24 GB"]
    assert not plan(large)["memory"]["cards"]["RTX 4090 24 GB"]


def test_the_embedded_twins_differ_in_their_conditioning_alone() -> None:
    defaults = model_defaults("embedded-shortcut")
    markovian, other = (build_config(defaults, load_yaml(path)) for path in sorted(of("embedded")))
    assert (markovian.objective.conditioning, other.objective.conditioning) == ("markovian", "non_markovian")
    assert markovian.task_options == {"min_terms": 2, "max_terms": 4}
    objective = markovian.objective.model_copy(update={"conditioning": "non_markovian"})
    assert markovian.model_copy(update={"objective": objective}) == other
