"""What stands between the rows of a printed log: samples, other processes, a torn end, errors, lines of a home-made loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from markovlm.logs.families import family, likely_reward
from markovlm.logs.find import find_runs, read_run
from markovlm.logs.mapping import read_mapping
from markovlm.logs.records import RunData


def read(path: Path, text: str) -> RunData:
    path.write_text(text)
    return read_run(path)


def trl(k: int, reward: float, **more: object) -> str:
    return str({"loss": k / 1000, "grad_norm": 0.3, "learning_rate": 1e-6, "reward": reward, "reward_std": 0.3, **more}) + "\n"


def test_printed_samples_are_no_rows(tmp_path: Path) -> None:
    sample = "{'format_reward': 1.0, 'answer_reward': 0.0, 'reward': 0.5}\n"
    run = read(tmp_path / "a.log", "".join(trl(k, 0.25) + sample * (k % 3 == 0) for k in range(30)))
    assert run.metrics["reward_mean"].to_list() == [0.25] * 30
    assert any("10 printed dictionaries" in line for line in run.problems)
    alone = read(tmp_path / "b.log", sample * 20)
    assert (alone.kind, alone.steps) == ("unknown", 0)


def test_a_home_made_loop_s_lines_are_rows_with_means_of_totals(tmp_path: Path) -> None:
    line = "2026-01-05 09:00:0{k},000 - train - INFO - rl_loss: -0.0{k}5, l2_norm: .2, reward_data: {{'total_num': 16, 'total_reward': {r}}}\n"
    sample = "{'format_reward': 1.0, 'reward': 1.0}\n"
    run = read(tmp_path / "a.log", "".join(line.format(k=k, r=8 + k) + sample for k in range(8)))
    assert run.metrics["reward_mean"].to_list() == [(8 + k) / 16 for k in range(8)]
    assert run.metrics["loss"][1] == -0.015
    run = read(
        tmp_path / "b.log", "".join(f"[train] step {k}/90 | loss=0.5 | mean_reward=0.{k} | kl_div: 1e-2\n" for k in range(1, 9))
    )
    assert run.metrics["step"].to_list() == list(range(1, 9))
    assert (run.metrics["reward_mean"][2], run.metrics["kl"][0]) == (0.3, 0.01)
    settings = "lr: 1e-6, kl_coef: 0.01, loss_scale: 1.0, reward_weight: 0.5\nsaving step 12: size 3.2\n"
    assert read(tmp_path / "c.log", settings * 9).steps == 0


def test_blocks_below_a_step_are_rows(tmp_path: Path) -> None:
    block = "==== Step {k}/50 ====\n  • Loss: 0.0{k}\n  • Avg Reward: 0.{k}\n  • Mean Generation Length: 20{k}.5\n  • Total step time: 3.2s\n"
    run = read(tmp_path / "a.log", "".join(block.format(k=k) for k in range(1, 9)))
    assert run.metrics["step"].to_list() == list(range(1, 9))
    assert run.metrics["reward_mean"].to_list() == [k / 10 for k in range(1, 9)]
    assert run.metrics["cot_length"][0] == 201.5


@pytest.mark.parametrize("rates", [[1e-6] * 40, [1e-6 - k * 1e-8 for k in range(40)]])
def test_rows_of_several_processes_are_one_row(tmp_path: Path, rates: list[float]) -> None:
    lines = [trl(k, 0.25 + 0.25 * rank, learning_rate=rates[k], epoch=round(k / 100, 2)) for k in range(40) for rank in range(3)]
    run = read(tmp_path / "a.log", "".join(lines))
    assert run.metrics["step"].to_list() == list(range(1, 41))
    assert run.metrics["reward_mean"].to_list() == [0.5] * 40
    ranked = "".join(f"[rank{rank}]: {trl(k, 0.25 * rank)}" for k in range(9) for rank in (1, 0))
    assert read(tmp_path / "b.log", ranked).metrics["reward_mean"].to_list() == [0.25] * 9
    same_step = "".join(trl(k, 0.25 + 0.5 * rank, step=k) for k in range(1, 9) for rank in (0, 1))
    assert read(tmp_path / "c.log", same_step).metrics["reward_mean"].to_list() == [0.5] * 8


def test_rounded_epochs_of_one_process_are_rows_of_their_own(tmp_path: Path) -> None:
    run = read(tmp_path / "a.log", "".join(trl(k, 0.25, epoch=round(k / 400, 2)) for k in range(1, 81)))
    assert run.steps == 80


VERL = "(TaskRunner pid=1) step:{s} - actor/entropy:0.4 - actor/lr:1e-06 - critic/score/mean:0.512 - response_length/mean:600.0"


def test_every_cut_of_a_growing_verl_log_has_its_reward_in_every_row(tmp_path: Path) -> None:
    text = "".join(VERL.format(s=s) + "\n" for s in range(1, 8))
    for cut in range(len(text) - 2 * len(VERL), len(text)):
        run = read(tmp_path / "a.log", text[:cut])
        assert run.metrics["reward_mean"].to_list() == [0.512] * run.steps, cut
        assert run.steps >= 4
    torn = text + VERL.format(s=8).split(" - critic")[0] + "\n"
    run = read(tmp_path / "b.log", torn)
    assert run.last_step == 7
    assert any("incomplete" in line for line in run.problems)


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (
            'Traceback (most recent call last):\n  File "t.py", line 8, in <module>\nRuntimeError: NCCL timed out\n',
            "RuntimeError: NCCL timed out",
        ),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***\n", "DUE TO TIME LIMIT"),
        ("/bin/sh: line 1: 7 Segmentation fault (core dumped)\n", "Segmentation fault"),
        ("Killed\n", "Killed"),
    ],
)
def test_the_error_at_the_end_is_kept(tmp_path: Path, tail: str, said: str) -> None:
    run = read(tmp_path / "a.log", "".join(trl(k, 0.5) for k in range(6)) + tail)
    (event,) = run.events
    assert event["kind"] == "error"
    assert said in event["text"]
    calm = read(tmp_path / "b.log", "".join(trl(k, 0.5) for k in range(6)) + "no error: done\n")
    assert calm.events == []


def test_slurm_s_files_are_opened(tmp_path: Path) -> None:
    for name in ("slurm-7.out", "slurm-7.err"):
        (tmp_path / name).write_text("".join(trl(k, 0.5) for k in range(6)))
    assert [path.name for path in find_runs([tmp_path])] == ["slurm-7.err", "slurm-7.out"]


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("mean_reward", "reward_mean"), ("std_reward", "reward_std"), ("kl_div", "kl"), ("reward/mean", "reward_mean"), ("reward/pass@1", "accuracy"),
        ("train/avg_score", "reward_mean"), ("rollout/mean_episode_return", "reward_mean"), ("rewardMean", "reward_mean"),
        ("val/accuracy", "eval_accuracy"), ("test/mean_reward", "eval_reward"), ("eval/reward/format", "eval_reward/format"),
        ("correctness_reward", "reward/correctness"), ("mean_response_length", "cot_length"), ("policy/approx_kl", "behavior_kl"),
        ("truncation_rate", "cot_length_saturated_fraction"), ("clip_fraction", "ratio_clipped_fraction"), ("num_tokens", None),
        ("reward_2_weight_scale_factor_x", None), ("critic/advantages/mean", None), ("lr", "lr"), ("Train/Grad-Norm", "grad_norm"),
    ],
)  # fmt: skip
def test_names_by_family(key: str, ours: str | None) -> None:
    assert family(key) == ours


def test_a_log_without_a_known_reward_says_how_to_name_it(tmp_path: Path) -> None:
    rows = "".join(f'{{"step": {k}, "loss": 0.5, "kl": 0.01, "entropy": 0.5, "points": 0.5}}\n' for k in range(30))
    run = read(tmp_path / "a.jsonl", rows)
    assert any("no column is recognised as the reward" in line and "--map reward=COLUMN" in line for line in run.problems)
    assert likely_reward(["loss", "x/final_scores_2", "reward_std"]) == "x/final_scores_2"
    nested = "".join(f'{{"step": {k}, "loss": 0.5, "lr": 1e-6, "sample": {{"reward": 1.0, "n": 3}}}}\n' for k in range(30))
    run = read(tmp_path / "b.jsonl", nested)
    assert (run.training, run.has("reward_mean")) == ("supervised", False)
    pairs = "".join(f'{{"current_steps": {k}, "total_steps": 9, "loss": 0.6, "accuracy": 0.9, "lr": 1e-6}}\n' for k in range(30))
    assert read(tmp_path / "c.jsonl", pairs).training == "preference"


def test_rows_of_unknown_names_say_how_to_name_them(tmp_path: Path) -> None:
    log = tmp_path / "odd.jsonl"
    log.write_text("".join(f'{{"update": {n}, "solved_frac": {0.01 * n}, "toks": 100, "note": "x"}}\n' for n in range(1, 31)))
    run = read_run(log)
    assert run.problems == [
        "odd.jsonl: no column is a known metric (columns: solved_frac, toks, update); name them: --map reward=solved_frac --map step=update"
    ]
    named = read_run(log, mapping=read_mapping(["reward=solved_frac", "step=update"]))
    assert (named.steps, named.last_step) == (30, 30)
    (tmp_path / "data.jsonl").write_text('{"id": 1, "question": "a", "answer": "b"}\n' * 3)
    assert read_run(tmp_path / "data.jsonl").problems == ["data.jsonl: not a log: no line is a record of a known kind"]
