"""trainer_state.json and console logs of the Hugging Face Trainer and TRL: made-up oddities, and the real files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from markovlm.health.diagnose import diagnose_run
from markovlm.logs.completions import read_completions
from markovlm.logs.find import find_runs, read_run
from markovlm.logs.records import RunData, training_rows


def state(history: list[dict[str, Any]], **settings: Any) -> str:
    return json.dumps({"best_metric": None, "global_step": 9, "log_history": history, "logging_steps": 1, **settings}, indent=1)


def read(path: Path, text: str | bytes) -> RunData:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_run(path)


def row(step: int, reward: float) -> dict[str, Any]:
    return {"step": step, "epoch": step / 10, "loss": 0.1, "reward": reward, "rewards/right/mean": reward, "grad_norm": 1.0}


# --- trainer_state.json --------------------------------------------------------------------------------------------------


def test_keys_of_every_version_become_ours(tmp_path: Path) -> None:
    new = {
        "completions/mean_length": 20.0, "completions/clipped_ratio": 0.25, "clip_ratio/region_mean": 0.5, "rewards/f/std": 0.3,
        "sampling/sampling_logp_difference/mean": 0.01, "frac_reward_zero_std": 0.75, "reward_std": 0.1, "kl": 0.2, "entropy": 1.5,
        "learning_rate": 1e-6, "num_tokens": 100.0,
    }  # fmt: skip
    old = {"step": 2, "reward": 0.5, "rewards/f": 0.5, "completion_length": 30.0, "clip_ratio": 0.125}
    frame = read(tmp_path / "trainer_state.json", state([{"step": 1, "reward": 0.5, "rewards/f/mean": 0.5, **new}, old])).metrics
    assert frame["cot_length"].to_list() == [20.0, 30.0]
    assert frame["ratio_clipped_fraction"].to_list() == [0.5, 0.125]
    assert frame["reward/f"].to_list() == [0.5, 0.5]
    assert frame["reward_std/f"].to_list() == [0.3, None]
    assert [frame[key][0] for key in ("cot_length_saturated_fraction", "sampler_gap", "groups_without_spread")] == [
        0.25,
        0.01,
        0.75,
    ]
    assert [frame[key][0] for key in ("reward_std", "kl", "entropy", "lr")] == [0.1, 0.2, 1.5, 1e-6]
    assert "num_tokens" not in frame.columns


def test_a_state_cut_at_every_byte_gives_the_rows_before_the_cut(tmp_path: Path) -> None:
    whole = state([row(1, 0.5), row(2, 0.25), row(3, math.nan)])
    first = whole.index('"log_history"')
    ends = [i + 1 for i, c in enumerate(whole) if c == "}" and i > first]  # a row counts once its brace is there
    for cut in range(len(whole)):
        run = read(tmp_path / "trainer_state.json", whole[:cut])
        expected = sum(end <= cut for end in ends[:3])
        assert run.steps == expected, cut
        if first < cut < ends[2]:
            assert run.problems, cut
    assert math.isnan(read(tmp_path / "trainer_state.json", whole).metrics["reward_mean"][2])


def test_numbers_as_text_none_and_infinity(tmp_path: Path) -> None:
    history = [{"step": "1", "reward": "0.375", "kl": None, "loss": "nan", "grad_norm": "inf", "entropy": "text", "lr": True}]
    frame = read(tmp_path / "trainer_state.json", state([*history, row(2, 1.0)])).metrics
    assert frame["reward_mean"].to_list() == [0.375, 1.0]
    assert math.isnan(frame["loss"][0])
    assert frame["grad_norm"][0] == math.inf
    assert not {"kl", "entropy", "lr"} & set(frame.columns)


def test_evaluations_share_the_step_of_training_and_do_not_look_like_a_nan(tmp_path: Path) -> None:
    history = [row(1, 0.5), {"step": 1, "eval_loss": 0.25, "eval_reward": 0.75}, row(2, 0.5), {"step": 3, "eval_loss": 0.125}]
    run = read(tmp_path / "trainer_state.json", state(history))
    assert run.metrics["step"].to_list() == [1, 2, 3]
    assert run.metrics["eval_reward"].to_list() == [0.75, None, None]
    assert run.metrics["eval_loss"].to_list() == [0.25, None, 0.125]
    assert training_rows(run)["step"].to_list() == [1, 2]


def test_a_restart_replaces_the_steps_it_repeats_and_those_that_were_never_reached_again(tmp_path: Path) -> None:
    history = [row(step, 0.1) for step in range(1, 9)] + [row(step, 0.9) for step in range(4, 7)]
    run = read(tmp_path / "trainer_state.json", state(history))
    assert run.metrics["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert run.metrics["reward_mean"].to_list() == [0.1] * 3 + [0.9] * 3
    assert any("restart" in problem for problem in run.problems)


def test_a_lone_repeated_row_takes_nothing_else_away_and_rows_may_come_out_of_order(tmp_path: Path) -> None:
    run = read(tmp_path / "trainer_state.json", state([row(3, 0.3), row(1, 0.1), row(2, 0.2), row(1, 0.7)]))
    assert run.metrics["reward_mean"].to_list() == [0.7, 0.2, 0.3]


def test_samples_from_a_table_in_which_trl_keeps_the_reasoning_apart(tmp_path: Path) -> None:
    """The table is real (tests/auditing/test_sources.py)."""
    table = Path(__file__).parents[1] / "fixtures" / "audit" / "trl_completions.parquet"
    (tmp_path / "completions").mkdir()
    shutil.copy(table, tmp_path / "completions" / "completions_00001.parquet")
    run = read(tmp_path / "trainer_state.json", state([row(1, 1.0)]))
    read_completions(run, 10)
    assert {(s.question, s.cot, s.reward) for s in run.samples} == {
        ("What is 17+4+79?", "17+4=21. 21+79=100.\nThe answer is 100.", 1.0)
    }


def test_a_supervised_run_is_named_as_such(tmp_path: Path) -> None:
    history = [{"step": s, "loss": 1.0 / s, "learning_rate": 1e-5, "grad_norm": 1.0} for s in range(1, 40)]
    run = read(tmp_path / "trainer_state.json", state(history))
    assert (run.training, run.framework) == ("supervised", "transformers")
    found = diagnose_run(run)
    assert found.verdict == "unknown"
    assert "supervised" in found.why


# --- console -------------------------------------------------------------------------------------------------------------


def bar(now: int, total: int) -> str:
    return f"\r {100 * now // total}%|##   | {now}/{total} [00:01<00:09,  3.59s/it]"


def test_steps_come_from_the_bars_where_output_is_flushed_and_where_it_comes_in_bursts(tmp_path: Path) -> None:
    rows = [f"{{'loss': 0.1, 'reward': '{k / 10}', 'epoch': 0.0}}\n" for k in range(1, 7)]
    flushed = "".join(bar(step, 30) + (rows[step // 5 - 1] if step % 5 == 0 else "") for step in range(1, 31))
    drawn = [bar(step, 30) for step in range(31)]
    bursts = "".join([*drawn[:21], *rows[:4], *drawn[21:], *rows[4:], "{'train_runtime': 1.0, 'train_loss': 0.0}\n"])
    for text in (flushed, bursts):
        run = read(tmp_path / "run.log", "Total optimization steps = 30\n" + text)
        assert run.metrics["step"].to_list() == [5, 10, 15, 20, 25, 30]
        assert run.metrics["reward_mean"].to_list() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        assert run.rows_mean_over == 5


def test_without_bars_even_epochs_give_the_steps_and_a_torn_row_is_no_row(tmp_path: Path) -> None:
    lines = [f"{{'loss': 0.1, 'reward': 0.5, 'epoch': {0.25 * k}}}\n" for k in (1, 2, 3, 4)]
    run = read(tmp_path / "run.log", "noise\n" + "".join(lines) + "{'loss': 0.1, 'rew")
    assert run.metrics["step"].to_list() == [1, 2, 3, 4]


def test_a_resumed_run_in_the_same_file_goes_on_at_its_step(tmp_path: Path) -> None:
    def part(first: int, last: int, reward: float) -> str:
        return "".join(bar(s, 20) + f"{{'loss': 0.0, 'reward': {reward}, 'epoch': {s / 20}}}\n" for s in range(first, last + 1))

    run = read(tmp_path / "run.log", bar(0, 20) + part(1, 18, 0.25) + "\nKilled\n" + bar(0, 20) + part(16, 20, 0.75))
    assert run.metrics["step"].to_list() == list(range(1, 21))
    assert run.metrics["reward_mean"].to_list() == [0.25] * 15 + [0.75] * 5


def test_hostile_output_is_never_evaluated(tmp_path: Path) -> None:
    bad = "{'loss': __import__('os').system('touch pwned'), 'reward': 0.5}\n{'loss': 0.5, 'reward': '<script>1</script>', 'k': {1: 2}}\n"
    run = read(tmp_path / "run.log", bad + "{'loss': 0.5, 'reward': np.float64(0.25), 'lr': 1_0}\n" + "{" * 100_000)
    assert run.metrics["reward_mean"].to_list()[-1] == 0.25
    assert "lr" not in run.metrics.columns
    assert not (tmp_path / "pwned").exists()


# --- the real files ------------------------------------------------------------------------------------------------------


@pytest.mark.data("rl-logs")
def test_every_real_log_with_metrics_is_read_whole(real: Path) -> None:
    logs = real / "rl-logs"
    found = {path.name: read_run(path) for path in find_runs([logs])}
    assert len(found) == 37
    assert not [name for name, run in found.items() if run.training == "unknown" or not run.steps]
    assert sum(run.training == "supervised" for run in found.values()) == 3
    for name, run in found.items():
        if "exp" in name:
            assert (run.steps, run.rows_mean_over, run.last_step) == (40, 5, 200), name
        elif "gate" in name or "wave7" in name or "wave8" in name:
            assert (run.steps, run.rows_mean_over, run.last_step) == (200, 1, 200), name
        assert run.training == "supervised" or run.has("reward_mean"), name
        assert run.training == "supervised" or any(key.startswith("reward/") for key in run.metrics.columns), name
    silent = [p.name for p in logs.iterdir() if p.name not in found and p.suffix != ".md"]
    assert len(silent) == 10
    assert not [name for name in silent if "'loss'" in (logs / name).read_text(errors="replace")]
