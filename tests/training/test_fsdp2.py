"""Weights dealt over two processes (FSDP2; gloo, CPU): the gradients, runs and checkpoints of whole weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from markovlm.config import dump_yaml
from markovlm.errors import UserError
from markovlm.models.sharding import next_group, parts_to_deal
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.training import strategy
from markovlm.training.distributed import World
from markovlm.training.loop import train
from support import dealt, runs, tiny
from support.processes import forked, killed, resumes, train_forked

DEALT = {"distributed__strategy": "fsdp2"}

# ------------------------------------------------------------------------------------------------------- gradients


def gaps(models: dict[str, Path], names: list[str], paths: list[str], where: Path) -> dict[str, Any]:
    """Of support/dealt.py, by model and path."""
    done = forked(lambda: dealt.compare(paths, [models[name] for name in names]), where)
    assert [process.code for process in done] == [0, 0], done
    found: dict[str, Any] = json.loads(done[0].out.splitlines()[-1])
    assert len(found) == len(names) * len(paths)
    return found


def assert_as_whole(found: dict[str, Any]) -> None:
    """The CoTs and the gradient of whole weights, padded; 1e-7 is what the padded and the shared pass are apart in these (their
    rotary angles are float32)."""
    for name, one in found.items():
        assert one["same"], name
        assert one["gap"] < (1e-7 if "padded" not in name else 1e-15), (name, one)
        assert one["splits"] == int("memory" in name), (name, one)
        assert len(set(one["lengths"])) > 2, "the CoTs should end at different tokens"


@pytest.mark.distributed
def test_gradients_are_those_of_whole_weights_padded(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """With more micro-batches on one process than on the other, and one that runs out of memory in its gradient."""
    assert_as_whole(gaps(tiny_models, ["llama"], ["padded", "micro-batches", "memory runs out in backward"], tmp_path))


@pytest.mark.distributed
@pytest.mark.long
def test_gradients_of_every_path_are_those_of_whole_weights_padded(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Gemma's embedding and head share their weights."""
    assert_as_whole(gaps(tiny_models, ["llama", "gemma3"], list(dealt.PATHS), tmp_path))


# ------------------------------------------------------------------------------------------------------- turns and choices


@pytest.mark.parametrize(
    ("wishes", "taken"),
    [
        ([-1, -1], -1),  # all are through
        ([-1, 2], 2),  # one goes on alone
        ([3, 1, 2], 1),  # forward: who is behind catches up
        ([4 + 1, 4 + 3, -1], 3),  # backward, of four groups: likewise
        ([4 + 3, 0], 0),  # one is in its gradient, one on its way there
    ],
)
def test_the_group_to_gather_next(wishes: list[int], taken: int) -> None:
    assert next_group(wishes, 4) == taken


def test_a_model_with_its_layers_elsewhere_is_refused(tiny_models: dict[str, Path]) -> None:
    lm = tiny.load(tiny_models["gpt2"])
    with pytest.raises(
        UserError, match=r"'gpt2' \(GPT2LMHeadModel\): distributed.strategy=fsdp2 needs a model with model.layers"
    ):
        parts_to_deal("gpt2", lm.model)
    assert len(parts_to_deal("llama", tiny.load(tiny_models["llama"]).model)[1]) == 2


def test_auto_deals_what_does_not_fit_a_gpu(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """4 bytes a weight: 70 % of the card is the border. On CPU, and in one process, nothing is dealt."""
    run = tiny.config(tiny_models["llama"], loading__dtype="float32")
    weights = 4 * sum(p.numel() for p in tiny.load(tiny_models["llama"]).causal_lm.parameters())
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = {}
    for share in (0.69, 0.71):
        card = SimpleNamespace(total_memory=weights / share)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, card=card: card)
        found[share] = strategy._is_dealt(run, World(), torch.device("cuda"))
    assert found == {0.69: False, 0.71: True}
    assert not strategy._is_dealt(run, World(), torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not strategy._is_dealt(run, World(), torch.device("cuda"))


# ------------------------------------------------------------------------------------------------------- runs


def flat(run: Path, step: int) -> torch.Tensor:
    adapter = load_file(RunDirectory(run).checkpoint(step) / "adapter_model.safetensors")
    return torch.cat([adapter[name].flatten() for name in sorted(adapter)])


def small(model: Path, **overrides: Any) -> Any:
    """Three steps on three questions, uneven over two processes, with evaluations and baselines."""
    keys = {
        "loading__dtype": "float32", "objective__name": "ema", "rollouts__questions_per_step": 3, "training__steps": 3,
        "training__eval_every": 3, "evaluation__dev_size": 3, "logging__samples_every": 1,
    }  # fmt: skip
    return tiny.config(model, **{**keys, **overrides})


def trained(root: Path, name: str, run: Any) -> Path:
    """By two processes, in root/name."""
    file = root / f"{name}.yaml"
    file.write_text(dump_yaml(run))
    done = train_forked(root, str(file), "--out", name)
    assert [process.code for process in done] == [0, 0], done
    return root / name


def continued(run: Path, name: str, steps: int, strategy: str) -> Path:
    """A copy of a run, continued by two processes."""
    out = Path(shutil.copytree(run, run.parent / name))
    flags = ("--training.steps", str(steps), "--distributed.strategy", strategy)
    done = train_forked(out.parent, "--resume", str(out), *flags)
    assert [process.code for process in done] == [0, 0], done
    return out


@pytest.mark.distributed
@pytest.mark.long
def test_a_run_is_that_of_one_process(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Metrics, CoTs, evaluations, adapter and its file's layout; the same fingerprint of the base."""
    train(small(tiny_models["llama"]), tmp_path / "one")
    one, two = tmp_path / "one", trained(tmp_path, "two", small(tiny_models["llama"], **DEALT))
    for name in ("metrics.jsonl", "evals.jsonl"):
        for expected, row in zip(runs.rows(one, name), runs.rows(two, name), strict=True):
            assert set(row) == set(expected)
            for key, value in expected.items():
                close = pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
                assert row[key] == close, key
    drawn = [
        [(row["step"], row["question_id"], row["cot"], row["baseline_cot"]) for row in runs.rows(run, "samples.jsonl")]
        for run in (one, two)
    ]
    assert drawn[0] == drawn[1]
    assert (flat(two, 3) - flat(one, 3)).norm() <= 1e-4 * (flat(one, 3) - flat(one, 0)).norm()
    files = [(RunDirectory(run).checkpoint(3) / "adapter_config.json").read_text() for run in (one, two)]
    assert files[0] == files[1]
    made = [json.loads((run / "environment.json").read_text()) for run in (one, two)]
    assert [one["strategy"] for one in made] == ["single", "fsdp2"]
    assert made[0]["base_fingerprint"] == made[1]["base_fingerprint"]
    (check,) = [event["message"] for event in read_rows(two / "events.jsonl") if event["message"].startswith("fsdp2: ")]
    assert "frozen weights sharded over 2 processes" in check


@pytest.mark.distributed
@pytest.mark.long
def test_checkpoints_of_either_strategy_load_in_the_other(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Whole in one process, dealt over two, whole in each of two: a step each. The same adapter as without a change."""
    run = small(tiny_models["llama"], training__eval_every=0)
    train(run, tmp_path / "whole")
    train(small(tiny_models["llama"], training__eval_every=0, training__steps=1), tmp_path / "mixed")
    mixed = continued(tmp_path / "mixed", "dealt", 2, "fsdp2")
    mixed = continued(mixed, "again", 3, "ddp")
    assert [row["step"] for row in read_rows(mixed / "metrics.jsonl")] == [1, 2, 3]
    assert (flat(mixed, 3) - flat(tmp_path / "whole", 3)).norm() <= 1e-4 * (flat(mixed, 3) - flat(mixed, 0)).norm()
    events = [event["message"] for event in read_rows(mixed / "events.jsonl")]
    assert sum(message.startswith("fsdp2: ") for message in events) == 1


@pytest.mark.distributed
@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_resumes(tiny_models: dict[str, Path], tmp_path: Path, victim: int) -> None:
    out, file = tmp_path / "run", tmp_path / "run.yaml"
    file.write_text(dump_yaml(small(tiny_models["llama"], training__steps=500, training__eval_every=0, **DEALT)))
    killed(file, out, victim)
    with pytest.raises(UserError, match=r"torchrun --nproc-per-node N .* or set distributed.strategy=ddp"):
        resumes(out)
    last = RunDirectory(out).saved_steps()[-1]
    steps = [row["step"] for row in read_rows(continued(out, "again", last + 2, "fsdp2") / "metrics.jsonl")]
    assert steps == list(range(1, last + 3))
