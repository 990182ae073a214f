"""Settings with a known outcome. Each rule: a configuration that it is about, and one beside it that it is not about."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import markovlm
from markovlm.checks import ours, trl, verl
from markovlm.checks.check import check_file
from markovlm.checks.finding import Checked
from markovlm.checks.lengths import at_least
from markovlm.checks.plan import TrainingPlan
from markovlm.checks.reading import read_settings
from markovlm.cli import main
from markovlm.config.shipped import shipped
from markovlm.errors import UserError
from markovlm.logs.frameworks import NAMED

ROOT = Path(__file__).parents[2]
FINE_TRL: dict[str, Any] = {
    "num_generations": 8, "per_device_train_batch_size": 8, "max_completion_length": 1024, "eval_strategy": "steps", "beta": 0.001,
}  # fmt: skip
A, R = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout."
FINE_VERL: dict[str, Any] = {
    "algorithm.adv_estimator": "grpo", R + "n": 8, "trainer.test_freq": 5, "trainer.save_freq": 20, "data.filter_overlong_prompts": True,
}  # fmt: skip
TRL: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [  # name, level, settings that it is about, settings just beside
    ("one_cot_a_group", "fails", {"num_generations": 1}, {"num_generations": 4}),
    ("few_cots_a_group", "warn", {"num_generations": 2}, {"num_generations": 4}),
    ("auto_batch_size", "fails", {"auto_find_batch_size": True}, {"auto_find_batch_size": False}),
    ("two_batch_sizes", "fails", {"generation_batch_size": 8, "steps_per_generation": 1}, {"generation_batch_size": 8}),
    ("batch_not_whole_groups", "warn", {"per_device_train_batch_size": 6}, {"per_device_train_batch_size": 16}),
    ("batch_not_whole_groups", "fails", {"generation_batch_size": 12}, {"generation_batch_size": 24}),
    (
        "batch_not_whole_groups", "fails", {"per_device_train_batch_size": 6, "num_processes": 2},
        {"per_device_train_batch_size": 6, "num_processes": 4},
    ),
    (
        "batch_not_whole_groups", "warn", {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ),
    (
        "evaluation_not_whole_groups", "fails", {"per_device_eval_batch_size": 3, "num_processes": 4},
        {"per_device_eval_batch_size": 4, "num_processes": 4},
    ),
    ("greedy_sampling", "fails", {"temperature": 0}, {"temperature": 0.1}),
    ("temperature_apart", "fails", {"generation_kwargs": {"temperature": 0.6}}, {"generation_kwargs": {"temperature": 1.0}}),
    ("sampling_truncated", "warn", {"top_p": 0.9}, {"top_p": 1.0}),
    ("sampling_truncated", "warn", {"top_k": 20}, {"top_k": -1}),
    ("sampling_truncated", "warn", {"repetition_penalty": 1.1}, {"repetition_penalty": 1.0}),
    (
        "sampler_uncorrected", "warn", {"use_vllm": True, "vllm_importance_sampling_correction": False},
        {"use_vllm": False, "vllm_importance_sampling_correction": False},
    ),
    ("default_limit", "warn", {"max_completion_length": None}, {"max_completion_length": 256}),
    ("passes_without_kl", "warn", {"beta": 0.0, "num_iterations": 4}, {"beta": 0.0, "num_iterations": 1}),
    ("reference_unused", "fails", {"sync_ref_model": True, "beta": 0}, {"sync_ref_model": True}),
    ("rate_too_high", "warn", {"learning_rate": "2e-5"}, {"learning_rate": "2e-5", "use_peft": True}),
    ("rate_too_high", "warn", {"learning_rate": 5e-5, "lora_r": 16}, {"learning_rate": 9e-6}),
    ("columns_removed", "warn", {"remove_unused_columns": True}, {"remove_unused_columns": False}),
    ("never_evaluated", "warn", {"eval_strategy": "no"}, {"eval_strategy": None, "evaluation_strategy": "steps"}),
    ("no_checkpoint", "warn", {"save_strategy": "no"}, {"save_strategy": "epoch"}),
]  # fmt: skip
VERL: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("one_cot_a_group", "fails", {R + "n": None}, {R + "n": None, "algorithm.adv_estimator": "gae"}),
    ("mini_batch_over_batch", "fails", {"data.train_batch_size": 64}, {"data.train_batch_size": 256}),
    ("batch_not_whole_mini_batches", "warn", {"data.train_batch_size": 1000}, {"data.train_batch_size": 512}),
    (
        "batch_not_over_gpus", "fails", {"trainer.n_gpus_per_node": 7},
        {"trainer.n_gpus_per_node": 7, A + "megatron.tensor_model_parallel_size": 2},
    ),
    ("two_micro_batch_sizes", "fails", {A + "ppo_micro_batch_size": 8, A + "ppo_micro_batch_size_per_gpu": 1}, {A + "ppo_micro_batch_size": 8}),
    ("window_too_small", "fails", {R + "max_model_len": 1000}, {R + "max_model_len": 1024}),
    (
        "tokens_a_gpu_too_few", "fails", {A + "use_dynamic_bsz": True, A + "ppo_max_token_len_per_gpu": 1000},
        {A + "use_dynamic_bsz": True, A + "ppo_max_token_len_per_gpu": 1024},
    ),
    ("long_prompt_ends_run", "warn", {"data.filter_overlong_prompts": False}, {"data.filter_overlong_prompts": False, "data.truncation": "left"}),
    ("greedy_sampling", "fails", {R + "do_sample": False}, {R + "val_kwargs.do_sample": False}),
    ("sampling_truncated", "warn", {R + "top_p": 0.7}, {R + "val_kwargs.top_p": 0.7}),
    (
        "correction_without_log_probs", "fails", {"algorithm.rollout_correction.rollout_is": "token"},
        {"algorithm.rollout_correction.rollout_is": "token", R + "calculate_log_probs": True},
    ),
    (
        "sampler_uncorrected", "warn", {R + "quantization": "fp8"},
        {R + "quantization": "fp8", "algorithm.rollout_correction.rollout_is": "token", R + "calculate_log_probs": True},
    ),
    ("passes_without_kl", "warn", {A + "ppo_epochs": 2}, {A + "ppo_epochs": 2, A + "use_kl_loss": True}),
    ("kl_without_weight", "warn", {A + "use_kl_loss": True, A + "kl_loss_coef": 0}, {A + "kl_loss_coef": 0}),
    ("kl_twice", "warn", {A + "use_kl_loss": True, "algorithm.use_kl_in_reward": True}, {"algorithm.use_kl_in_reward": True}),
    ("entropy_is_paid", "warn", {A + "entropy_coeff": 0.001}, {A + "entropy_coeff": 0}),
    ("rate_too_high", "warn", {A + "optim.lr": 1e-5}, {A + "optim.lr": 1e-5, "actor_rollout_ref.model.lora_rank": 32}),
    ("never_evaluated", "warn", {"trainer.test_freq": None}, {"trainer.test_freq": 10}),
    ("no_checkpoint", "warn", {"trainer.save_freq": -1}, {"trainer.save_freq": 1}),
]  # fmt: skip


def checked(tmp_path: Path, settings: dict[str, Any], **more: Any) -> Checked:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in settings.items() if value is not None}))
    return check_file(file, **more)


def names(found: Checked) -> list[tuple[str, str]]:
    return [(finding.name, finding.level) for finding in found.findings]


@pytest.mark.parametrize(("name", "level", "about", "beside"), TRL)
def test_a_rule_on_trl(tmp_path: Path, name: str, level: str, about: dict[str, Any], beside: dict[str, Any]) -> None:
    assert names(checked(tmp_path, FINE_TRL | about)) == [(name, level)]
    assert names(checked(tmp_path, FINE_TRL | beside)) == []


@pytest.mark.parametrize(("name", "level", "about", "beside"), VERL)
def test_a_rule_on_verl(tmp_path: Path, name: str, level: str, about: dict[str, Any], beside: dict[str, Any]) -> None:
    assert names(checked(tmp_path, FINE_VERL | about)) == [(name, level)]
    assert names(checked(tmp_path, FINE_VERL | beside)) == []


def test_every_rule_is_tested_and_documented_with_its_source() -> None:
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    for module, cases, title in ((trl, TRL, "## TRL"), (verl, VERL, "## verl"), (ours, None, "## markovlm")):
        code = Path(module.__file__ or "").read_text(encoding="utf-8")
        rules = set(re.findall(r'Finding\(\s*"(\w+)"', code))
        assert len(rules) >= 7
        assert cases is None or rules == {name for name, *_ in cases}
        part = page.partition(title)[2].partition("\n## ")[0]
        assert all(re.search(rf"\b{rule}\b", part) for rule in rules), rules
        sources = set(re.findall(r'"(https://[^"]+)"', code))
        assert all(source in part for source in sources), sources


def test_defaults_count_and_are_marked(tmp_path: Path) -> None:
    found = checked(tmp_path, {"num_generations": 8})
    assert {name for name, _ in names(found)} == {"default_limit", "never_evaluated"}
    assert all("(default)" in finding.what for finding in found.findings)


def test_what_only_running_the_file_would_tell_is_said_and_judged_by_no_rule() -> None:
    plan = TrainingPlan(
        NAMED["TRL"], {"use_vllm": True}, trl.DEFAULTS, frozenset({"num_generations", "max_completion_length", "temperature"})
    )
    assert {finding.name for finding in trl.findings(plan)} == {"never_evaluated"}


SCRIPT = r"""#!/bin/bash
N=4; GPUS=8   # two in a line
export LEN=$((1024 * 2))
lr=1e-6
if [ "$1" = big ]; then rows=64
rows=64
else
rows=128
fi
ROLLOUT="
  actor_rollout_ref.rollout.n=$N \
  actor_rollout_ref.rollout.name=vllm"
python3 -m verl.trainer.main_ppo --config-name='ppo' algorithm.adv_estimator=grpo \
    data.train_batch_size=$rows data.train_files="['a b.parquet']" \
    data.max_response_length=$LEN +data.extra.x=${UNSET:-7} \
    actor_rollout_ref.actor.optim.lr=$lr \
    trainer.default_local_dir=$HOME/x trainer.nnodes=$(wc -l < hosts) \
    $ROLLOUT
"""


def test_a_script_is_read_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_text(SCRIPT + f"touch {tmp_path}/ran; x=$(touch {tmp_path}/ran)\n")
    found = read_settings(file)
    values = dict(found.values)
    assert values["actor_rollout_ref.rollout.n"] == 4
    assert values["data.max_response_length"] == 2048
    assert values["data.extra.x"] == 7
    assert values["actor_rollout_ref.actor.optim.lr"] == 1e-6
    assert values["config_name"] == "ppo"
    assert values["data.train_files"] == "['a b.parquet']"
    assert {"data.train_batch_size", "trainer.default_local_dir", "trainer.nnodes"} <= set(found.unread)  # rows: 64 or 128
    assert not (tmp_path / "ran").exists()
    assert check_file(file).framework == "verl"


def test_flags_of_trl_in_a_script(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_text(
        "accelerate launch x.py --num_generations=1 --max-completion-length 512 --use_vllm --no_gradient_checkpointing\n"
    )
    values = dict(read_settings(file).values)
    assert values == {"num_generations": 1, "max_completion_length": 512, "use_vllm": True, "gradient_checkpointing": False}
    assert names(check_file(file))[0] == ("one_cot_a_group", "fails")


def test_a_python_file_is_read_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text(
        f"import os\nopen({str(tmp_path / 'ran')!r}, 'w')\nG = 4\n"
        "args = trl.GRPOConfig(num_generations=G, per_device_train_batch_size=G * 2, beta=os.environ['B'], **more)\n"
    )
    found = read_settings(file)
    assert dict(found.values) == {"num_generations": 4, "per_device_train_batch_size": 8}
    assert found.unread == ("beta", "**")
    assert not (tmp_path / "ran").exists()


def test_wandb_and_json_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"num_generations": {"desc": None, "value": 1}, "learning_rate": {"value": "1e-6"}}))
    assert dict(read_settings(file).values) == {"num_generations": 1, "learning_rate": 1e-6}


def test_answers_longer_than_the_limit(tmp_path: Path) -> None:
    rows = [{"question": "q", "solution": "word " * (50 if i < 8 else 5), "answer": "4"} for i in range(40)]  # 20 % of 50
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for framework, limit, level in (
        ("trl", 40, "warn"),
        ("trl", 50, None),
        ("trl", 4, "fails"),
        ("verl", 40, "warn"),
        ("markovlm", 40, "warn"),
    ):
        settings = {
            "trl": FINE_TRL | {"max_completion_length": limit}, "verl": FINE_VERL | {"data.max_response_length": limit},
            "markovlm": {"task": "gsm8k", "model": "embedded", "rollouts": {"max_cot_tokens": limit}},
        }[framework]  # fmt: skip
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        (found,) = markovlm.check(tmp_path / "config.yaml", answers=answers)
        about = [finding for finding in found.findings if finding.name == "limit_under_answers"]
        assert [finding.level for finding in about] == ([] if level is None else [level])
        assert all("=128 or more" in finding.change for finding in about)  # 50 words, half as many again, in steps of 64
    with pytest.raises(UserError, match="column 'reason'"):
        markovlm.check(tmp_path / "config.yaml", answers=answers, answers_column="reason")


def test_a_text_has_at_least_as_many_tokens_as_words_and_groups_of_digits() -> None:
    assert at_least("17 + 4 = 21") == 3
    assert at_least("It is 1234567 km.") == 6  # It, is, 123, 456, 7, km


def test_our_own_configurations(tmp_path: Path) -> None:
    assert names(checked(tmp_path, {"task": "arithmetic", "rollouts": {"group_size": 1}})) == [("refused", "fails")]
    assert names(checked(tmp_path, {"task": "arithmetic", "training": {"eval_every": 0}})) == [("never_evaluated", "warn")]
    server = {"backend": "server", "server_url": "http://localhost:8000", "importance": "off"}
    assert names(checked(tmp_path, {"task": "arithmetic", "rollouts": server})) == [("sampler_uncorrected", "warn")]
    assert names(checked(tmp_path, {"task": "arithmetic", "rollouts": server | {"importance": "auto"}})) == []
    with pytest.raises(UserError, match="load it yourself with --plugin"):
        checked(tmp_path, {"task": "arithmetic", "plugins": ["mine.py"]})


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "smollm2", "training": {"steps": 1}},  # under the warm-up that comes with the model
        {"model": "smollm2", "task": "wiki", "chain": {"kind": "thinking", "steps": 2}},  # whose prompts say the budget
        {"model": "embedded-notes", "tasks": {"words": 1, "arithmetic": 1}},  # neither is that model's own
    ],
)
def test_the_defaults_of_a_model_are_those_of_train(tmp_path: Path, settings: dict[str, Any]) -> None:
    markovlm.api.training.configure(settings)
    assert "refused" not in dict(names(checked(tmp_path, settings)))


def test_no_shipped_configuration_fails() -> None:
    for one in shipped().values():
        assert check_file(one.path).verdict != "fails", one.name


def test_the_command_and_its_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grpo.yaml"
    file.write_text("num_generations: 1\nmax_completion_length: 64\n")
    assert main(["check", str(file)]) == 3
    out = capsys.readouterr().out
    assert out.startswith("fails  ")
    assert "num_generations=1: a group of one has no spread" in out
    assert "https://github.com/huggingface/trl/pull/3199" in out
    file.write_text("num_generations: 8\nmax_completion_length: 64\n")
    assert main(["check", str(file)]) == 0
    assert main(["check", str(file), "--fail-on", "warn", "--json"]) == 3
    (config,) = json.loads(capsys.readouterr().out.partition("\n{")[2].join(("{", "")))["configs"]
    assert config["verdict"] == "warn"
    assert config["findings"][0]["name"] == "never_evaluated"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "learning_rate: 1e-6\n", "--framework"),
        ("a.yaml", "a: [\n", "not valid YAML"),
        ("a.yaml", "", "contains no settings"),
        ("a.py", "x = 1\n", "no GRPOConfig"),
        ("a.py", "x = (\n", "not valid Python"),
        ("a.sh", "echo hello\n", "contains no settings"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    assert main(["check", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_hostile_file_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {
        "a.py": "GRPOConfig(num_generations=" + "(" * 50_000 + ")" * 50_000 + ")",
        "b.sh": "a.b=" + "$((" * 5_000 + "\n" + "x='" * 5_001,
        "c.sh": "x=1" + "\\\n" * 10_000 + "\nN=$((9999999999999 * 9999999999999))\n--num-generations $N\n",
    }.items():
        (tmp_path / name).write_text(content)
        assert main(["check", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
