"""Reading runs: every generation, every kind of damage, and nothing that fails the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from markovlm.errors import UserError
from markovlm.logs.choose import Light, choose
from markovlm.logs.find import find_runs, read_run, read_runs
from markovlm.logs.rows import MAX_TEXT
from markovlm.logs.schema import METRIC, METRICS
from markovlm.report.metrics_doc import render
from markovlm.research_logs.keys import generation, keys_of
from markovlm.research_logs.log import recognises
from report.native import eval_row, metric_row, sample_row, write_jsonl, write_native
from report.seed import GSM8K, record, write_run, write_seed

# --- native ------------------------------------------------------------------------------------------------------------


def test_a_native_run_is_read_whole(tmp_path: Path) -> None:
    run = read_run(write_native(tmp_path / "a"))
    assert (run.kind, run.name, run.task, run.steps, run.last_step, run.problems) == ("native", "a", "arithmetic", 300, 300, [])
    assert run.config["lora.rank"] == 8
    assert run.config["objective.name"] == "grpo"
    assert run.environment == {"torch": "2.13.0"}
    assert run.metrics["baseline_answer_logprob"].null_count() == 240
    assert [e.step for e in run.evals] == [0, 100, 200, 300]
    assert run.evals[1].main == "anchor"
    assert not run.evals[0].of_actor
    assert run.evals[1].scores["simple"].accuracy == pytest.approx(0.59)
    assert len(run.samples) == 30
    assert run.samples[0].correct is True
    assert run.samples[0].line == 1
    assert run.events[0]["kind"] == "end"


def test_a_bare_metrics_file_is_its_run(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "a")
    run = read_run(folder / "metrics.jsonl")
    assert run.kind == "native"
    assert run.name == "a"
    assert run.steps == 300
    assert run.path == folder / "metrics.jsonl"


def test_the_fast_and_the_slow_way_agree(tmp_path: Path) -> None:
    fast = read_run(write_native(tmp_path / "fast"))
    folder = write_native(tmp_path / "slow")
    for name in ("metrics.jsonl", "samples.jsonl"):
        with open(folder / name, "a") as file:
            file.write("\n")  # an empty line is enough for the careful reader
    slow = read_run(folder)
    assert slow.metrics.equals(fast.metrics.select(slow.metrics.columns))
    assert [s.line for s in slow.samples] == [s.line for s in fast.samples]


@pytest.mark.parametrize("tail", ['{"step": 301, "lo', '{"step": 301}', "\x00\x00", '{"step": 301, "loss": 1.0}\n{"st'])
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, tail: str) -> None:
    folder = write_native(tmp_path / "a")
    for name in ("metrics.jsonl", "samples.jsonl", "evals.jsonl", "events.jsonl"):
        with open(folder / name, "a") as file:
            file.write(tail)
    run = read_run(folder)
    assert run.steps >= 300
    assert len(run.evals) == 4
    assert run.metrics["loss"].null_count() <= 1
    whole = tail == '{"step": 301}'
    assert whole or any("incomplete" in p for p in run.problems)


def test_text_infinity_and_nonsense_in_numbers(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "a", steps=0)
    lines = [json.dumps(metric_row(s)) for s in range(1, 11)]
    lines += ['{"step": 11, "loss": Infinity}', '{"step": 12, "loss": "NaN (no active examples)"}', '{"step": 13, "loss": "0.5"}']
    lines += [
        '{"step": 14, "loss": [1]}',
        "[1, 2]",
        "null",
        "not json",
        '{"step": 15, "loss": true}',
        '{"step": "16", "loss": 1e999}',
    ]
    lines += ['{"step": 17, "loss": ' + "9" * 400 + "}", '{"step": null, "loss": 3}', '{"loss": 4}', "[" * 100_000]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = read_run(folder)
    loss = dict(zip(run.metrics["step"], run.metrics["loss"], strict=True))
    assert loss[11] == float("inf")
    assert loss[12] is None
    assert loss[13] == 0.5
    assert loss[14] is None
    assert loss[15] == 1.0
    assert loss[16] == float("inf")
    assert loss[17] == float("inf")
    assert run.last_step == 17
    text = "\n".join(run.problems)
    assert (
        "NaN (no active" in text and "not a JSON object: 4 rows" in text.replace(", the first", "")
    ) or "not a JSON object" in text
    assert "without a step" in text


def test_a_resumed_run_writes_steps_again(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "a", steps=0)
    write_jsonl(
        folder / "metrics.jsonl", [metric_row(s) for s in range(1, 21)] + [metric_row(s, loss=9.0) for s in range(15, 31)]
    )
    run = read_run(folder)
    assert run.metrics["step"].to_list() == list(range(1, 31))
    assert run.metrics["loss"].to_list()[13:16] == [0.1, 9.0, 9.0]
    assert any("repeat a step" in p for p in run.problems)
    assert run.lines[15] == 21


def test_missing_and_broken_parts(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "a")
    (folder / "config.yaml").write_text("a: [1, 2\n b: {")
    (folder / "environment.json").write_text("{")
    (folder / "evals.jsonl").write_text('{"step": 1}\n{"step": 2, "accuracy": "high"}\n{"step": 3, "accuracy": 7}\n')
    (folder / "metrics.jsonl").unlink()
    run = read_run(folder)
    text = "\n".join(run.problems)
    assert run.kind == "native"
    assert run.steps == 0
    assert run.evals == []
    assert all(
        word in text for word in ("config.yaml", "environment.json", "metrics.jsonl: missing", "evaluation without accuracy")
    )


def test_an_evaluation_without_interval_gets_one(tmp_path: Path) -> None:
    row = eval_row(10, 0.5, n=100)
    del row["ci95"], row["extractors"]
    run = read_run(write_native(tmp_path / "a", evals=[row]))
    score = run.evals[0].score
    assert run.evals[0].main == "accuracy"
    assert score.low == pytest.approx(0.404, abs=2e-3)
    assert score.high == pytest.approx(0.596, abs=2e-3)


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    run = read_run(write_native(tmp_path / "a", samples=[sample_row(1, cot="x" * 100_000), sample_row(2, cot="\ud800 lone")]))
    assert len(run.samples[0].cot) < MAX_TEXT + 100
    assert "92,000 more characters" in run.samples[0].cot
    run.samples[1].cot.encode("utf-8")


def test_samples_are_chosen_over_time_and_by_reward() -> None:
    rows = [Light(step=i, offset=i, line=i + 1, reward=float(-abs(i - 700)), correct=i % 50 == 0) for i in range(1000)]
    chosen = choose(rows, 60)
    assert len(chosen) <= 60
    assert {0, 700, 999} <= set(chosen)
    assert any(rows[i].correct for i in chosen)
    assert choose(rows[:5], 60) == [0, 1, 2, 3, 4]
    assert choose([Light(0, 0, 1, float("nan"), None)] * 100, 10)[0] == 0


# --- the research code -------------------------------------------------------------------------------------------------


def test_nested_records_map_to_our_keys(tmp_path: Path) -> None:
    log = write_run(tmp_path / "gsm8k" / "run1", {}, GSM8K)
    run = read_run(log)
    assert (run.kind, run.name, run.task, run.steps) == ("g4", "gsm8k/run1", "gsm8k", 4)
    assert run.metrics["step"].to_list() == [0, 999, 3999, 7999]
    assert run.metrics["answer_logprob"].to_list() == [-3.8125, -3.3594, -1.5312, -0.0894]
    assert run.metrics["kl"][0] == pytest.approx(0.03)  # weighted KL 0.003 over kl_penalty 0.1
    assert "ratio_mean" not in run.metrics.columns
    assert run.metrics["no_gradient_fraction"].to_list() == [0.0] * 4
    assert run.config["rollouts.max_cot_tokens"] == 100
    assert run.config["objective.name"] == "grpo"
    assert "Grace" in run.samples[0].question
    assert run.samples[0].answer == "623"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"Aggregate loss": 0.0, "Normalized Reward": 1.0, "Avg Log Prob": -1.0}, "g1"),
        ({"Aggregate loss": 0.0, "Normalized Reward": 1.0, "PPO Ratio": 1.0}, "g1b"),
        ({"Aggregate loss": 0.0, "Normalized Reward": 1.0, "PPO Ratio": 1.0, "Num Active Samples": 1}, "g1c"),
        ({"Loss": 0.0, "Normalized Reward": 1.0, "Num Active Samples": 1}, "g1d"),
        ({"Example": {}, "Training Metrics": {"Normalized Reward": 1.0, "Avg Log Prob": -1.0}}, "g2"),
        ({"Training Metrics": {"Loss": 0.0, "Actor Answer Log Probs": -1.0}}, "g3"),
        ({"Training Metrics": {"Loss": 0.0, "Raw Loss": 0.0}}, "g4"),
        ({"step": 1, "loss": 0.0}, None),
    ],
)
def test_generations_are_told_apart_by_content(row: dict, kind: str | None) -> None:
    assert generation(row) == kind


def test_an_evaluation_result_beside_the_log_belongs_to_the_run(tmp_path: Path) -> None:
    write_seed(tmp_path / "seed")
    runs = {run.name: run for run in read_runs([tmp_path / "seed"])}
    assert set(runs) == {"aqua/run1", "arc/run1", "gsm8k/run1", "mmlu/run1", "svamp/run1"}
    evaluation = runs["aqua/run1"].evals[0]
    assert evaluation.n == 254
    assert evaluation.step == 5000
    assert set(evaluation.scores) == {"reported", "word_boundary"}


def test_constant_and_duplicate_batch_numbers(tmp_path: Path) -> None:
    constant = tmp_path / "constant.jsonl"
    write_jsonl(constant, [record(4, 0.0, 0.0, -1.0, None, "x", "gsm8k") for _ in range(10)])
    run = read_run(constant)
    assert run.metrics["step"].to_list() == list(range(10))
    assert any("constant" in p for p in run.problems)
    twice = tmp_path / "twice.jsonl"
    write_jsonl(twice, [record(b, float(i), 0.0, -1.0, None, "x", "gsm8k") for i, b in enumerate([0, 1, 2, 1, 2, 3])])
    run = read_run(twice)
    assert run.metrics["step"].to_list() == [0, 1, 2, 3]
    assert run.metrics["loss"].to_list() == [0.0, 3.0, 4.0, 5.0]


def test_the_key_tables_name_known_metrics() -> None:
    derived = {"active", "weighted_kl"}
    for kind in ("g1", "g4"):
        assert set(keys_of(kind)) - derived <= set(METRIC)
    assert len(METRIC) == len(METRICS)


@pytest.mark.data("runlogs")
def test_the_real_logs_of_every_generation(real: Path) -> None:
    runs = {run.path.name: run for run in read_runs([real / "runlogs"])}
    kinds = {name: (run.kind, run.steps) for name, run in runs.items()}
    assert kinds == {
        "g1-arithmetic-mistral-ei.log": ("g1", 1085),
        "g1-arithmetic-mistral-pg.log": ("g1", 1178),
        "g1b-arithmetic-mistral-ppo.log": ("g1b", 1014),
        "g1c-arithmetic-no-header.jsonl": ("g1c", 12),
        "g1c-wiki-compression.jsonl": ("g1c", 44),
        "g1d-arithmetic-llama-ei.jsonl": ("g1d", 204),
        "g2-arithmetic-mistral-ppo-reduced.log": ("g2", 1014),
        "g3-gsm8k-llama-ei.jsonl": ("g3", 1310),
        "g4-arithmetic-gpt2-a.jsonl": ("g4", 3),
        "g4-header-only.jsonl": ("g4", 0),
        "gsm8k-eval-mistral.json": ("evaluation", 0),
    }
    first = runs["g1-arithmetic-mistral-ei.log"]
    assert first.metrics["answer_logprob"][0] == pytest.approx(-4.468242645263672)
    assert first.samples[0].question.startswith("30 + 1 + 55")
    assert first.samples[0].answer == "702"
    assert any("constant" in p for p in runs["g1d-arithmetic-llama-ei.jsonl"].problems)
    assert any("no header" in p for p in runs["g1c-arithmetic-no-header.jsonl"].problems)
    assert any("no records" in p for p in runs["g4-header-only.jsonl"].problems)


@pytest.mark.data("runlogs")
def test_a_stand_alone_evaluation_file(real: Path) -> None:
    run = read_run(real / "runlogs" / "gsm8k-eval-mistral.json")
    assert run.kind == "evaluation"
    assert run.evals[0].n == 1319
    assert run.evals[0].score.accuracy == pytest.approx(0.34647, abs=1e-5)
    assert run.evals[0].score.no_answer == pytest.approx(86 / 1319)


# --- finding -----------------------------------------------------------------------------------------------------------


def test_runs_are_found_in_the_order_of_arguments(tmp_path: Path) -> None:
    b, a = write_native(tmp_path / "x" / "b"), write_native(tmp_path / "x" / "a")
    log = write_run(tmp_path / "y" / "gsm8k" / "r", {}, GSM8K)
    (tmp_path / "x" / "notes.jsonl").write_text('{"hello": 1}\n')
    (tmp_path / "x" / "results.log").write_text("plain text\n")
    assert find_runs([log, tmp_path / "x"]) == [log, a, b]
    assert find_runs([b, b, tmp_path]) == [b, a, log]


def test_wrong_arguments_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        find_runs([tmp_path / "absent"])
    with pytest.raises(UserError, match="no runs found"):
        find_runs([tmp_path])


def test_files_of_the_same_name_get_names_that_differ(tmp_path: Path) -> None:
    for part in ("p", "q"):
        write_native(tmp_path / part / "run")
    assert [run.name for run in read_runs([tmp_path])] == ["run", "run (2)"]


def test_empty_and_foreign_files_given_by_name_are_reported(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    runs = list(read_runs([tmp_path / "empty.jsonl", tmp_path / "picture.png"]))
    assert [run.kind for run in runs] == ["unknown", "unknown"]
    assert "empty" in runs[0].problems[0]
    assert "not a log" in runs[1].problems[0]


# --- fuzz --------------------------------------------------------------------------------------------------------------

SEEDS = [
    b"\n".join(json.dumps(metric_row(s)).encode() for s in range(1, 12)) + b"\n",
    b"\n".join(json.dumps(record(b, 0.0, 0.0, -1.0, 1.0, "cot", "gsm8k")).encode() for b in range(12)) + b"\n",
    b"\n".join(json.dumps(sample_row(s)).encode() for s in range(1, 12)) + b"\n",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=3)
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=6)), max_size=6),
    st.integers(0, 4000),
    st.booleans(),
)
def test_damaged_logs_never_fail(tmp_path: Path, data: bytes, edits: list[tuple[int, bytes]], cut: int, native: bool) -> None:
    for at, new in edits:
        data = data[:at] + new + data[at + len(new) :]
    data = data[: max(0, len(data) - cut)]
    if native:
        folder = tmp_path / "fuzz"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_bytes(data[:200])
        for name in ("metrics", "samples", "evals", "events"):
            (folder / f"{name}.jsonl").write_bytes(data)
        run = read_run(folder)
    else:
        path = tmp_path / "fuzz.jsonl"
        path.write_bytes(data)
        run = read_run(path)
    assert run.metrics["step"].is_sorted()
    assert run.metrics["step"].n_unique() == run.steps


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["step", "loss", "Batch Index", "Training Metrics", "Example", "accuracy"]), json_values),
        max_size=8,
    )
)
def test_any_json_objects_never_fail(tmp_path: Path, rows: list[dict]) -> None:
    path = tmp_path / "any.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", errors="replace")
    read_run(path)
    recognises(path, rows)


def test_the_documentation_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == render(), "python -m markovlm.report.metrics_doc > docs/metrics.md"


def test_a_row_of_a_hundred_thousand_keys_is_read_in_part(tmp_path: Path) -> None:
    row = {"step": 1, **{f"k{i}": float(i) for i in range(100_000)}, "reward_mean": 0.5}
    folder = write_native(tmp_path / "run")
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    run = read_run(folder)
    assert run.metrics.width == 2_001
    assert run.metrics["reward_mean"].to_list() == [0.5]  # ours first
    assert "metrics.jsonl: 100,001 metrics; only 2,000 were read" in run.problems
