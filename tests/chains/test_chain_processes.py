"""Chains of different lengths over two processes (gloo, CPU) against one: the same states, metrics and adapter, as of ordinary runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from markovlm.config import dump_yaml
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.training.loop import train
from support import runs, tiny
from support.processes import train_forked

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.long]


def test_two_processes_train_ragged_chains_as_one_does(tmp_path: Path) -> None:
    """Three texts over two processes, of two to four chunks: one process has more states than the other, at every step another number.

    In float64: in float32 the adapters agree to rounding only, and a draw 5e-6 from the edge between two tokens fell on either side.
    """
    keys: dict[str, Any] = {
        "task": "ledger", "task_options": {"chunks": 4, "min_chunks": 2}, "chain__kind": "notes_then_questions", "chain__reward": "both",
        "chain__gamma": 0.9, "loading__dtype": "float64", "lora__rank": 8, "lora__alpha": 16, "rollouts__questions_per_step": 3,
        "rollouts__group_size": 3, "rollouts__max_cot_tokens": 8, "training__steps": 3, "training__lr": 1e-3, "training__eval_every": 3,
        "training__checkpoint_every": 3, "evaluation__dev_size": 5, "logging__samples_every": 1, "objective__name": "rloo",
    }  # fmt: skip
    config = tiny.config("embedded", **keys)
    train(config, tmp_path / "one")
    (tmp_path / "run.yaml").write_text(dump_yaml(config))
    done = train_forked(tmp_path, str(tmp_path / "run.yaml"), "--out", str(tmp_path / "two"))
    assert [process.code for process in done] == [0, 0], done
    one, two = (tmp_path / name for name in ("one", "two"))
    assert '"processes": 2' in (two / "environment.json").read_text()

    named = ("step", "question_id", "sample", "t", "cot", "baseline_cot")
    states = [[[row[key] for key in named] for row in read_rows(run / "samples.jsonl")] for run in (one, two)]
    assert states[0] == states[1]
    lengths = {len({row[3] for row in states[0] if row[0] == step}) for step in (1, 2, 3)}
    assert max(lengths) > 2
    texts = {(row[0], row[1].partition("@")[0]): 0 for row in states[0]}
    for row in states[0]:
        texts[row[0], row[1].partition("@")[0]] += 1
    assert len(set(texts.values())) > 1  # ragged

    for name in ("metrics.jsonl", "evals.jsonl"):
        for expected, row in zip(runs.rows(one, name), runs.rows(two, name), strict=True):
            assert set(row) == set(expected)
            for key, value in expected.items():
                exact = not isinstance(value, float)
                assert row[key] == (value if exact else pytest.approx(value, rel=1e-4, abs=1e-6)), key

    start, alone, both = (
        load_file(RunDirectory(run).checkpoint(step) / "adapter_model.safetensors")
        for run, step in ((one, 0), (one, 3), (two, 3))
    )
    flat = [torch.cat([adapter[name].flatten() for name in sorted(alone)]) for adapter in (start, alone, both)]
    assert (flat[2] - flat[1]).norm() <= 1e-5 * flat[1].norm()
    assert (flat[2] - flat[1]).norm() <= 1e-4 * (flat[1] - flat[0]).norm()  # of what was learned; Adam enlarges rounding
    assert (flat[1] - flat[0]).norm() > 0.01 * flat[1].norm()
