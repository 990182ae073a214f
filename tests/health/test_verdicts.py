"""Verdicts on runs whose truth is known: copied and ignored questions, lost answers, decay, trends, chance, idle PPO, too few rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from markovlm.health.diagnose import Diagnosis
from markovlm.health.monitor import judge
from markovlm.report import diagnose_paths
from markovlm.report.synthesis import synthesis
from markovlm.report.trust import verdict_on_tasks
from markovlm.tasks.chance import chance_level
from markovlm.texts.question import alike, contains_answer, question_signals, restates, specificity
from report.native import eval_row, write_native
from report.seed import write_result, write_run, write_seed

Cot = Callable[[int, list[int]], str]


def sums(numbers: list[int]) -> str:
    """`79+69=148, 148+51=199`"""
    total, parts = numbers[0], []
    for n in numbers[1:]:
        parts.append(f"{total} + {n} = {total + n}")
        total += n
    return "Next, calculate " + ", then ".join(parts)


def copied(numbers: list[int]) -> str:
    return f"To find the sum of {' + '.join(map(str, numbers))} we add {', '.join(map(str, numbers))} together"


ADVICE = (
    "To add many numbers, line them up by place value, add the ones first and carry what is left over to the next column. Work from the "
    "right to the left, check every carry, and group numbers that make round tens so that the work gets easier and errors become rare."
)


def log(path: Path, cot: Cot, reward: Callable[[int], float], rows: int = 300, **more: object) -> Diagnosis:
    """A log of one sample a row, as of 2024."""
    rng = random.Random(0)
    lines: list[dict[str, object]] = [{"model_learning_rate": 1e-4, "batch_size": 6, "num_batches": rows, "use_ppo": False}]
    for step in range(rows):
        numbers = [rng.randint(10, 99) for _ in range(12)]
        text = cot(step, numbers)
        lines.append({
            "Batch Index": step, "Prev Observation": "Question: " + " + ".join(map(str, numbers)), "Action": "Reasoning: " + text,
            "Observation": f"Answer: {sum(numbers)}", "Reasoning Contains Answer": str(sum(numbers)) in text,
            "Avg Log Prob": -5.0 + reward(step) + rng.gauss(0, 0.5), "Normalized Reward": reward(step) + rng.gauss(0, 0.5),
            "Aggregate loss": 0.1, "Grad Norm": 0.3, **more,
        })  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return diagnose_paths([path])[0]


def rules_of(d: Diagnosis) -> set[str]:
    return {finding.rule for finding in d.findings}


# --- the question and the CoT ------------------------------------------------------------------------------------------


def test_restating_is_told_from_reckoning() -> None:
    numbers = [30, 1, 55, 90, 49, 67]
    question = " + ".join(map(str, numbers))
    assert restates(question, copied(numbers)) is True
    assert restates(question, sums(numbers)) is False
    assert restates("2 + 3", "2 + 3") is None
    story = "Tom has three bags with four apples each and gives half of all the apples to his sister Ann"
    assert restates(story, f"Well, {story.lower()}, so we must think.") is True
    assert restates(story, "There are 3 * 4 = 12 apples, half of them is 6.") is False


def test_an_answer_in_a_cot() -> None:
    assert contains_answer("so 1,080 in all", "1080")
    assert not contains_answer("so 10801", "1080")
    assert contains_answer("that is (B), iron", "B")
    assert not contains_answer("BA", "B")
    assert contains_answer("anything", "") is None


def test_specific_and_general_cots() -> None:
    a, b = "30 + 41 + 55 + 90", "12 + 77 + 18 + 64"
    assert specificity(a, sums([30, 41, 55, 90]), b) == 1.0
    assert specificity(a, ADVICE, b) == 0.0
    assert specificity(a, sums([12, 77, 18, 64]), b) == -1.0
    assert specificity("5 + 6", "11", b) is None
    assert alike(ADVICE, ADVICE) == 1.0
    found = question_signals([a, b], [ADVICE, ADVICE], ["216", "171"])
    assert found == {"cot_contains_answer": 0.0, "copies_question_fraction": 0.0, "question_specificity": 0.0}


def test_a_policy_that_comes_to_copy_its_question(tmp_path: Path) -> None:
    d = log(
        tmp_path / "a.jsonl",
        lambda step, n: copied(n) if step >= 120 or step % 3 == 0 else sums(n),
        lambda step: 0.04 + 2.5 * step / 300,
    )
    assert d.verdict == "warn"
    assert {"copies_question", "answer_gone"} <= rules_of(d)
    assert d.onset_step is not None
    assert 100 <= d.onset_step <= 145
    assert d.cause is not None
    assert d.cause.name == "copies_question"
    found = next(f for f in d.findings if f.rule == "copies_question")
    assert found.step is not None
    assert 100 <= found.step <= 130
    assert any(f"no checkpoint from step {found.step}" in line for line in d.advice)
    assert d.case.safe_step(250) == found.step - 1
    assert "copies_question" in judge(d.run.metrics.iter_rows(named=True)).kinds  # the guard sees it too


def test_a_base_that_copies_and_learns_to_reckon_is_healthy(tmp_path: Path) -> None:
    d = log(tmp_path / "a.jsonl", lambda step, n: copied(n) if step < 40 else sums(n), lambda step: min(step, 100) / 25)
    assert (d.verdict, d.doubt) == ("healthy", None)
    assert not {"copies_question", "ignores_question", "answer_gone"} & rules_of(d)
    assert d.case.safe_step(299) == 299


def test_a_policy_that_ignores_its_question(tmp_path: Path) -> None:
    loop = "advice " * 200

    def cot(step: int, numbers: list[int]) -> str:
        return sums(numbers) if step < 60 else ADVICE if step < 240 else loop

    d = log(tmp_path / "a.jsonl", cot, lambda step: 1.0 if step < 240 else -4.0)
    assert d.verdict == "collapsed"
    assert "ignores_question" in rules_of(d)
    assert "use one before step" in d.advice[0]  # before the advice began, not before the loop
    before = int(d.advice[0].split("use one before step ")[1].split(",")[0])
    assert 45 <= before <= 75
    calm = log(tmp_path / "b.jsonl", lambda step, n: sums(n) if step < 60 else ADVICE, lambda step: 1.0)
    assert calm.verdict == "warn"
    assert calm.doubt == "question ignored"


def test_bare_answers_do_not_ignore_the_question(tmp_path: Path) -> None:
    d = log(tmp_path / "a.jsonl", lambda step, n: sums(n) if step < 60 else f"The answer is {sum(n)}", lambda step: 1.0)
    assert "ignores_question" not in rules_of(d)


# --- courses -----------------------------------------------------------------------------------------------------------


def test_slow_decay_is_a_share_of_the_gain(tmp_path: Path) -> None:
    rng = random.Random(1)

    def change(step: int) -> dict[str, float]:
        level = -4.9 + 3.06 * min(step, 200) / 200 - 2.0 * max(0, step - 200) / 400  # to -1.84 and back to -3.84
        value = level + rng.gauss(0, 1.5)
        return {"answer_logprob": value, "reward_mean": value, "normalized_reward_mean": value + 5.0}

    d = diagnose_paths([write_native(tmp_path / "r", steps=600, change=change, evals=[])])[0]
    found = next(f for f in d.findings if f.rule == "decay_after_peak")
    assert found.confidence == "high"
    lost = int(found.evidence.split(" % of what had been gained")[0].split(" ")[-1])
    assert 65 <= lost <= 95
    assert d.verdict == "warn"


def test_learning_in_noise_is_seen_and_too_little_is_said_to_be_too_little(tmp_path: Path) -> None:
    def noisy(step: int, slope: float) -> dict[str, float | None]:
        value = -5.6 + slope * step + random.Random(step).gauss(0, 2.8)
        keys = ("answer_logprob", "reward_mean", "normalized_reward_mean")
        return dict.fromkeys(keys, value) | {"answer_correct_fraction": None}

    learns = diagnose_paths([write_native(tmp_path / "a", steps=400, change=lambda s: noisy(s, 0.007), evals=[], samples=[])])[0]
    assert any(f.rule == "trend" and "learns" in f.evidence for f in learns.findings)
    assert not {"no_learning", "cannot_tell"} & rules_of(learns)
    short = diagnose_paths([write_native(tmp_path / "b", steps=60, change=lambda s: noisy(s, 0.0), evals=[], samples=[])])[0]
    assert "cannot_tell" in rules_of(short)
    assert "no_learning" not in rules_of(short)
    evals = [eval_row(0, 0.05), eval_row(60, 0.25)]  # the rows are as noisy, but 200 questions are enough
    seen = diagnose_paths([write_native(tmp_path / "c", steps=60, change=lambda s: noisy(s, 0.0), evals=evals, samples=[])])[0]
    assert any(f.rule == "trend" and "learns, by its evaluations: 5.0 %" in f.evidence for f in seen.findings)
    assert "cannot_tell" not in rules_of(seen)


def test_few_rows_and_rows_that_say_nothing(tmp_path: Path) -> None:
    few = diagnose_paths([write_native(tmp_path / "few", steps=12, evals=[])])[0]
    assert few.verdict == "unknown"
    assert "12 rows over 12 steps: too early to judge" in few.why
    nothing = {"reward_mean": None, "normalized_reward_mean": None, "answer_logprob": None, "answer_correct_fraction": None}
    path = write_native(tmp_path / "blind", steps=60, change=lambda s: {**nothing, "grad_norm": None}, evals=[], samples=[])
    blind = diagnose_paths([path])[0]
    assert blind.verdict == "unknown"
    assert "without reward or log-prob" in blind.why


def test_no_gradient_and_ppo_that_does_nothing(tmp_path: Path) -> None:
    still = log(tmp_path / "still.jsonl", lambda step, n: sums(n), lambda step: 0.0, rows=60, **{"Grad Norm": 0.0})
    assert still.verdict == "warn"
    assert "no_gradient" in rules_of(still)
    idle = log(tmp_path / "idle.jsonl", lambda step, n: sums(n), lambda step: 0.0, rows=60, **{"PPO Ratio": 1.0})
    assert "idle_ratio" not in rules_of(idle)  # it says use_ppo: false
    text = (tmp_path / "idle.jsonl").read_text().replace('"use_ppo": false', '"use_ppo": true')
    (tmp_path / "ppo.jsonl").write_text(text)
    ppo = diagnose_paths([tmp_path / "ppo.jsonl"])[0]
    assert "idle_ratio" in rules_of(ppo)
    assert "frozen_anchor" not in rules_of(ppo)
    moving = tmp_path / "moving.jsonl"
    moving.write_text(text.replace('"PPO Ratio": 1.0', '"PPO Ratio": 1.2'))
    old = diagnose_paths([moving])[0]
    anchor = next(f for f in old.findings if f.rule == "frozen_anchor")
    assert anchor.confidence == "medium"  # the code of that generation was not read
    assert any("use_ppo to false" in line for line in old.advice)


# --- chance, base, headline --------------------------------------------------------------------------------------------


def test_chance_levels() -> None:
    levels = {task: chance_level(task) for task in ("aqua", "mathqa", "arc", "mmlu", "gsm8k", "wiki", "nobody")}
    assert levels == {"aqua": 0.2, "mathqa": 0.2, "arc": 0.25, "mmlu": 0.25, "gsm8k": 0.0, "wiki": 0.0, "nobody": None}


def test_no_run_of_the_seed_is_to_be_trusted(tmp_path: Path) -> None:
    all_of_them = diagnose_paths([write_seed(tmp_path / "seed")])
    said = {t.task: t for t in verdict_on_tasks(all_of_them)}
    assert all(t.run is None for t in said.values())
    assert "not above chance, 20.0 %" in said["aqua"].why
    assert "collapsed" in said["arc"].why
    assert "published base, 19.6 %" in said["gsm8k"].why
    aqua = next(d for d in all_of_them if d.run.task == "aqua")
    assert "below_chance" in rules_of(aqua)
    assert aqua.doubt == "below chance"
    together = synthesis(all_of_them)
    ppo = next(h for h in together.hypotheses if h.claim.startswith("PPO"))
    assert (ppo.speaks_for, ppo.speaks_against) == (("arc/run1",), ())
    assert any(p.task == "aqua" and "chance 20.0 %" in p.sentence for p in together.patterns)
    assert any("delete" in step and "arc/run1 from step 999" in step for step in together.next_steps)
    advice = [r.advice for r in together.recommendations]
    assert len(advice) == len(set(advice))
    assert max(len(r.runs) for r in together.recommendations) >= 4


@pytest.mark.parametrize(
    ("base", "after", "n", "trusted"), [(0.1, 0.6, 500, True), (0.55, 0.6, 100, False), (0.7, 0.6, 500, False)]
)
def test_a_run_must_beat_its_base(tmp_path: Path, base: float, after: float, n: int, trusted: bool) -> None:
    d = diagnose_paths([write_native(tmp_path / "r", evals=[eval_row(0, base, n), eval_row(300, after, n)])])[0]
    said = verdict_on_tasks([d])[0]
    assert (said.run is d) == trusted
    if not trusted:
        assert "not above its base" in said.why


def test_the_largest_evaluation_is_the_headline(tmp_path: Path) -> None:
    dev = [eval_row(step, 0.93 - abs(200 - step) / 1000, 100, split="dev") for step in (0, 100, 200, 300)]
    test = [eval_row(0, 0.1, 500, split="test"), eval_row(200, 0.948, 500, split="test")]
    d = diagnose_paths([write_native(tmp_path / "r", evals=[*dev, *test])])[0]
    assert d.case.best is not None
    assert (d.case.best.n, d.case.best.score.accuracy, d.best_step) == (500, 0.948, 200)
    assert "evaluation_too_small" not in rules_of(d)
    assert len(d.case.series) == 4  # the course is that of the dev split


def test_a_lone_evaluation_is_shown_as_one(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "true_answer": i, "generated_answer": i if i % 2 else "[invalid]"} for i in range(400)]
    (tmp_path / "eval.json").write_text(json.dumps({"accuracy": 0.5, "accuracy_other": 0.25, "results": rows}))
    d = diagnose_paths([tmp_path / "eval.json"])[0]
    assert d.verdict == "unknown"
    assert d.case.base is None
    assert "50.0 % [45.1, 54.9], n = 400" in d.why
    assert "other 25.0 %" in d.why
    assert "50.0 % of outputs without an answer" in d.why
    assert "base or a trained model" in d.why
    assert not any("let it run" in line for line in d.advice)


def test_advice_speaks_the_keys_of_the_research_code(tmp_path: Path) -> None:
    path = write_run(tmp_path / "gsm8k" / "r", {}, [(b, 0.0, 0.1, -1.0, None) for b in range(0, 4000, 100)])
    write_result(tmp_path / "gsm8k" / "r", "gsm8k", 0.5, 1319, 4000)
    d = diagnose_paths([path])[0]
    text = " ".join(d.advice)
    assert "eval_frequency" in text
    assert "training.eval_every" not in text
