"""An audit end to end on the embedded model, its numbers recomputed, and its statistics."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from markovlm.analysis import study as study_module
from markovlm.api.auditing import audit, audit_request, preview
from markovlm.auditing.compare import _kappa, _newcombe, ranking
from markovlm.auditing.measures import Values
from markovlm.auditing.sentences import cautions
from markovlm.cli.main import main
from markovlm.statistics import benjamini_hochberg, permutation_p, sign_flip_p
from support.scripts import load

SUMS = [
    ("17+4+79", "17+4=21,21+79=100", "100"),
    ("5+6+7", "5+6=11,11+7=18", "18"),
    ("30+41+2", "30+41=71,71+2=73", "73"),
    ("9+8+7", "9+8=17,17+7=24", "24"),
    ("50+1+2", "50+1=51,51+2=53", "53"),
    ("8+8+8", "8+8=16,16+8=24", "24"),
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("audit")
    rows = [{"question": q, "cot": c, "answer": a, "group": "<b>good</b>"} for q, c, a in SUMS]
    rows += [
        {"question": q, "cot": "<script>alert(1)</script>" if i else a, "answer": a, "group": "bad"}
        for i, (q, _, a) in enumerate(SUMS)
    ]
    file = write(folder / "cots.jsonl", rows)
    return folder, audit(file, ["embedded", "embedded-shortcut"])


def test_the_keys_that_others_rely_on(audited: tuple[Path, dict[str, Any]]) -> None:
    _, result = audited
    assert [(g["group"], g["n"]) for g in result["groups"]] == [("<b>good</b>", 6), ("bad", 6)]
    for group in result["groups"]:
        assert [one["reader"] for one in group["readers"]] == ["embedded", "embedded-shortcut"]
        for one in group["readers"]:
            for measure in ("logprob", "accuracy"):
                low, high = one[measure]["ci95"]
                assert low <= one[measure]["mean"] <= high
    assert set(result["studies"]) == {"damage", "leak", "bypass", "load", "agreement", "comparison", "ranking", "hints"}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_good_cots_are_read_and_compared_paired(audited: tuple[Path, dict[str, Any]]) -> None:
    _, result = audited
    good = result["groups"][0]["readers"][0]
    assert good["accuracy"]["mean"] == 1.0
    assert good["question_alone"]["accuracy"]["mean"] == 0.0
    row = next(r for r in result["studies"]["comparison"] if r["measure"] == "accuracy" and r["reader"] == "embedded")
    assert row["paired"]
    assert row["n"] == 6
    assert row["difference"]["mean"] < -0.5
    assert row["p"] <= row["q"]
    assert [one["group"] for one in result["studies"]["ranking"]] == ["<b>good</b>", "bad"]
    # 6 of 6 right: Wilson's interval for what six questions can't exclude, 1 - 1.96^2 / (6 + 1.96^2) = .61; a bootstrap has no spread
    assert "1.00 [0.61, 1.00] (<b>good</b>, n = 6) and 0.00 [0.00, 0.39] (bad, n = 6)" in result["quote"]
    assert "a difference of -1.00 [-1.00, -0.22], adjusted p" in result["quote"]
    assert result["quote"].count(". ") == 0  # one sentence
    assert "not how the model that wrote it came to its answer" in result["caveat"]


def test_its_numbers_are_those_of_plain_passes(audited: tuple[Path, dict[str, Any]]) -> None:
    """ln pi(answer | CoT) and its neighbours, one sequence at a time, with no code of the studies."""
    import torch

    from markovlm.api.models import load

    _, result = audited
    lm = load("embedded").setup.lm

    def score(question: str, cot: str, answer: str) -> float:
        ids = lm.tokenizer(f"<bos><|q|>{question}<|think|>{cot}<|answer|>", add_special_tokens=False)["input_ids"]
        tail = lm.tokenizer(f"{answer}<eos>", add_special_tokens=False)["input_ids"]  # the end of the reply is scored
        with torch.no_grad():
            logp = lm.causal_lm(torch.tensor([ids + tail])).logits[0].log_softmax(-1)
        return sum(logp[len(ids) + i - 1, token].item() for i, token in enumerate(tail)) / len(tail)

    good = result["groups"][0]["readers"][0]
    for key, question, cot in (
        ("alone", False, True),
        ("question_alone", True, False),
        ("both", True, True),
        ("nothing", False, False),
    ):
        expected = np.mean([score(q if question else "<|redacted|>", c if cot else "", a) for q, c, a in SUMS])
        found = good["logprob"] if key == "alone" else good[key]["logprob"]
        assert found["mean"] == pytest.approx(expected, abs=1e-4)


def test_the_page_is_one_file_with_everything_escaped(audited: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = audited
    page = (folder / "cots.jsonl.audit" / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>good" not in page
    assert "&lt;b&gt;good&lt;/b&gt;" in page
    assert 'class="cot"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_again_nothing_is_read_twice(audited: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, result = audited

    def fail(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(study_module, "read_variants", fail)
    assert audit(folder / "cots.jsonl", ["embedded", "embedded-shortcut"]) == result


def test_an_interrupted_audit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "c.jsonl", [{"question": q, "cot": c, "answer": a} for q, c, a in SUMS])
    few = {"evaluation": {"batch_size": 4}}
    whole = audit(file, "embedded", only=["leak"], out=tmp_path / "whole", config=few)
    real, calls = study_module.read_variants, [0]

    def killed(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(study_module, "read_variants", killed)
    with pytest.raises(KeyboardInterrupt):
        audit(file, "embedded", only=["leak"], out=tmp_path / "cut", config=few)
    assert not (tmp_path / "cut" / "audit.json").exists()
    assert audit(file, "embedded", only=["leak"], out=tmp_path / "cut", config=few) == whole
    assert calls[0] < 10


def test_how_answers_are_read_is_told_by_them(tmp_path: Path) -> None:
    def kind(*answers: str, **more: Any) -> str:
        rows = [{"question": f"q{i}", "cot": "c", "answer": a, **more} for i, a in enumerate(answers)]
        return audit_request([write(tmp_path / "k.jsonl", rows)], ["embedded"]).material.answer_type

    assert kind("1", "2.5", "$1,080") == "number"
    assert kind("A", "b") == "letter"
    assert kind("iron", "wood", choices=["iron", "wood"]) == "letter"
    assert kind("iron", "wood") == "text"
    decimals = audit_request([write(tmp_path / "d.jsonl", [{"question": "q", "cot": "c", "answer": "2.5"}])], ["embedded"])
    assert (
        decimals.readers[0][1].config.evaluation.extractors == ()
    )  # the default reads decimals too: one of them changes nothing


def test_wrong_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write(tmp_path / "c.jsonl", [{"question": "1+2+3", "cot": "c", "answer": "6"}]))
    for arguments, says in (
        (["audit", file], "--reader: name at least one"),
        (["audit", file, "--reader", "no/such/model"], "--reader no/such/model"),
        (["audit", file, "--reader", "embedded", "--task", "gsm9k"], "--task gsm9k"),
        (["audit", file, "--reader", "embedded", "--task", "letter"], "no answer is a letter"),
        (["audit", file, "--reader", "embedded", "--only", "leek"], "--only leek"),
        (["audit", file, "--reader", "embedded", "--limit", "0"], "--limit 0"),
        (["audit", file, "--reader", "embedded", "--data", "x"], "--data"),
        (["audit", file, "--reader", "embedded", "--severities", "a"], "--severities a"),
        (["audit", file, "--reader", "embedded", "--perturbations", "nope"], "--perturbations nope"),
        (["audit", str(tmp_path), "--reader", "embedded"], "is a directory"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"c.jsonl"}


def test_what_it_costs_is_said_before(audited: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = audited
    found = preview(audit_request([folder / "cots.jsonl"], ["embedded"]))
    assert found["readers"][0]["tokens"] == sum(found["readers"][0]["by_part"].values()) > 1000
    assert main(["audit", str(folder / "cots.jsonl"), "--reader", "embedded", "--dry-run"]) == 0
    assert "about " in capsys.readouterr().out


def test_a_reader_trained_on_columns_of_its_own_reads_these_rows(tmp_path: Path) -> None:
    """What a run calls its columns, and what kind its answers are, has no say over the CoTs of an audit."""
    file = write(tmp_path / "cots.jsonl", [{"question": q, "cot": c, "answer": a} for q, c, a in SUMS])
    own = {"task": "custom", "data": {"columns": {"question": "Q"}, "answer_kind": "text"}}
    for task in ("number", "gsm8k"):
        request = audit_request([file], ["embedded"], task=task, config=own)
        assert preview(request)["readers"][0]["tokens"] > 0
        assert request.readers[0][1].prepare().task.answer_type == "number"


def test_known_quality_on_sums(tmp_path: Path) -> None:
    """Right, sentences shuffled, with another result, another question's, empty, the answer alone: in that order."""
    module = load("audit_quality", "benchmarks")
    file = write(tmp_path / "q.jsonl", module.by_quality(module.sums(30)))
    result = audit(file, "embedded", only=[])
    assert [row["group"] for row in result["studies"]["ranking"]] == list(module.QUALITIES)


def test_letters_are_read_with_the_choices_in_sight_too(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """A CoT that concludes "False" can only give B to a reader that sees the choices. Recomputed with plain passes."""
    import torch

    from markovlm.api.models import load

    numbers = (2, 4, 6, 8, 10)
    rows = [
        {"question": f"Is {i} odd?", "cot": f"{i} is even, so False.", "answer": "B", "choices": ["True", "False"]}
        for i in numbers
    ]
    file, device = write(tmp_path / "l.jsonl", rows), {"loading": {"device": "cpu"}}
    result = audit(file, str(tiny_models["llama"]), only=["leak"], config=device)
    one = result["groups"][0]["readers"][0]
    lm = load(tiny_models["llama"], config={"task": "gsm8k", **device}).setup.lm

    def score(prompt: str, cot: str) -> float:
        ids = lm.tokenizer(f"{prompt}\nReasoning:{cot} Answer: B\n")["input_ids"]
        with torch.no_grad():
            logp = lm.causal_lm(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(logp[i - 1, ids[i]].item() for i in (-3, -2, -1)) / 3  # " B" and the end of the reply, a token a character

    asks = (
        "You will be given a multiple choice question. Think through the problem step-by-step, then select the correct answer. "
        "Question: <Redacted>"
    )
    listed = "\n\nChoices:\nA. True\nB. False"
    for key, prompt in {"with_choices": asks + listed, "alone": asks, "choices_alone": asks + listed}.items():
        expected = np.mean([score(prompt, "" if key == "choices_alone" else row["cot"]) for row in rows])
        found = one if key == "alone" else one[key]
        assert found["logprob"]["mean"] == pytest.approx(expected, abs=1e-4)
    carried = one["with_choices"]["logprob"]["mean"] - one["choices_alone"]["logprob"]["mean"]
    assert one["carried"]["logprob"]["mean"] == pytest.approx(carried, abs=1e-6)
    # what the studies read, too: every CoT states its answer ("False", the text of its choice)
    assert result["studies"]["leak"][0]["logprob"]["mean"] == pytest.approx(one["with_choices"]["logprob"]["mean"], abs=1e-6)
    assert "CoT and choices" in (tmp_path / "l.jsonl.audit" / "audit.html").read_text(encoding="utf-8")


def test_every_cot_is_listed_with_what_was_read_from_it(audited: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = audited
    rows = [json.loads(line) for line in (folder / "cots.jsonl.audit" / "cots.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 12
    first = rows[0]
    assert (first["group"], first["question"], first["gold"], first["stated_at"]) == ("<b>good</b>", "17+4+79", "100", 14)
    alone = [one for one in first["readings"] if one["sees"] == "CoT alone"]
    assert next((one["reader"], one["extracted"], one["correct"]) for one in alone) == ("embedded", "100", True)
    page = (folder / "cots.jsonl.audit" / "audit.html").read_text(encoding="utf-8")
    assert page.count("<details") == 12
    assert "<mark" in page
    assert "✗ no answer" in page or "✗ wrong" in page


def test_what_the_numbers_cannot_say() -> None:
    rate = {"mean": 0.2, "ci95": [0.1, 0.3], "n": 40}
    reader = {"reader": "r", "too_long": 0, "unknown_tokens": 0.0, "reads_stated": rate, "no_answer": 0.5}
    group = {"group": "g", "n": 3, "readers": [{"reader": "r", "n": 12, "nothing": {"only_answer": "100"}}]}
    tied = [{"group": name, "rank": 1, "rank_to": 2} for name in "gh"]
    said = " | ".join(cautions([group], [reader], tied))
    assert (
        "WARNING: r is too weak a reader: it finds the answer in only 0.20 [0.10, 0.30] of CoTs that state the right one" in said
    )
    assert "50 % of its replies to CoTs contain no answer" in said
    assert "from neither question nor CoT it answers '100' to all 12 questions" in said
    assert "g has 3 questions: almost any difference" in said
    assert "no order" in said
    unknown = reader | {"reads_stated": {"mean": None, "ci95": [None, None], "n": 0}, "no_answer": 0.0}
    assert "too few to judge whether it can read such texts" in " ".join(cautions([group | {"n": 100}], [unknown], []))
    able = reader | {"reads_stated": rate | {"mean": 0.9}, "no_answer": 0.0}
    assert cautions([{"group": "g", "n": 100, "readers": []}], [able], [{"group": "g", "rank": 1, "rank_to": 1}]) == []


def test_a_difference_of_constant_rates_has_an_interval() -> None:
    """5 of 5 against 0 of 5, Newcombe's hybrid score: Wilson's bounds are 0 to .4345 and .5655 to 1, so 1 - sqrt(2) .4345 to 1."""
    found = _newcombe(np.zeros(5), np.ones(5))
    assert found["mean"] == 1.0
    assert found["ci95"] == pytest.approx([1 - 2**0.5 * 0.43448, 1.0], abs=1e-3)


@pytest.mark.data("stories260K", "gsm8k")
def test_gsm8k_solutions_through_a_real_language_model(real: Path, tmp_path: Path) -> None:
    """stories260K can't do sums (no order is expected of it), but it reads English: a solution is likelier text than its letters shuffled."""
    from support import stories

    model = stories.convert(real / "stories260K", tmp_path / "stories")
    rows = []
    for line in (real / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:20]:
        row = json.loads(line)
        if len(row["question"]) + len(row["answer"]) > 400:
            continue
        answer = row["answer"].rpartition("####")[2].strip()
        rng = np.random.default_rng(0)
        mixed = "".join(np.array(list(row["answer"]))[rng.permutation(len(row["answer"]))])
        rows += [
            {"question": row["question"], "cot": cot, "answer": answer, "group": g}
            for g, cot in (("real", row["answer"]), ("mixed", mixed))
        ]
    assert len(rows) >= 6
    result = audit(write(tmp_path / "g.jsonl", rows), str(model), only=["legibility"])
    right, mixed_ = (group["readers"][0]["text"]["bits_per_character"]["mean"] for group in result["groups"])
    assert right < mixed_
    assert result["groups"][0]["text"]["nonwords"]["mean"] < 0.05 < result["groups"][1]["text"]["nonwords"]["mean"]
    assert result["readers"][0]["unknown_tokens"] < 0.01


# ---------------------------------------------------------------------------------------------------------- statistics


def test_sign_flips_are_exact_for_few() -> None:
    """All 2^4 signs of (1, 2, 3, -1), written out."""
    data = [1.0, 2.0, 3.0, -1.0]
    sums = [abs(sum(s * d for s, d in zip(signs, data, strict=True))) for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flip_p(data, None, 0) == pytest.approx(np.mean([s >= 5 for s in sums]))
    assert sign_flip_p([1.0] * 10, ["a"] * 10, 0) == 1.0  # one question shows nothing
    assert sign_flip_p([], None, 0) == 1.0
    assert sign_flip_p([1.0] * 30, None, 0) == pytest.approx(1 / 10_001)


def test_permutations_find_a_difference_and_none() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 40).tolist(), rng.normal(2, 1, 40).tolist()
    assert permutation_p(a, b, None, None, 0) < 0.001
    assert permutation_p(a, a, None, None, 0) == 1.0


def test_benjamini_hochberg_by_hand() -> None:
    """p (1) .01 (2) .02 (3) .03 (4) .5 of m = 4: .04, .04, .04, .5."""
    assert benjamini_hochberg([0.5, 0.03, 0.01, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert benjamini_hochberg([]) == []


def test_kappa_by_hand() -> None:
    """20 of 50 both right, 15 both wrong: seen .7; rates .5 and .6: chance .5; kappa .4 (Cohen's own example of its kind)."""
    table = np.array([(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15, dtype=float)
    assert _kappa(table) == pytest.approx(0.4)


def test_the_order_of_equals() -> None:
    """Nothing carried: text before emptiness before bare answers; but they share their ranks."""
    questions = [f"q{i}" for i in range(12)]

    def group(name: str, carried: float, empty: float, bare: float) -> dict[str, Any]:
        gain = {"accuracy": {"mean": carried, "ci95": [carried, carried]}, "logprob": None}
        text = {"empty": {"mean": empty}, "bare_answer": {"mean": bare}}
        return {"group": name, "text": text, "readers": [{"reader": "r", "n": 12, "carried": gain, "reasoned_gain": gain}]}

    groups = [group("bare", 0, 0, 1), group("empty", 0, 1, 0), group("other", 0, 0, 0), group("right", 0.9, 0, 0)]
    values = {("r", g["group"]): {"carried_accuracy": Values([float(g["group"] == "right")] * 12, questions)} for g in groups}
    rows = ranking(groups, "r", values, 0)
    assert [row["group"] for row in rows] == ["right", "other", "empty", "bare"]
    assert [(row["rank"], row["rank_to"]) for row in rows] == [(1, 1), (2, 4), (2, 4), (2, 4)]
    few = {key: {"carried_accuracy": Values(one["carried_accuracy"].values[:4], questions[:4])} for key, one in values.items()}
    assert {(row["rank"], row["rank_to"]) for row in ranking(groups, "r", few, 0)} == {
        (1, 4)
    }  # four questions tell nothing apart


def test_a_budget_chooses_how_many_questions_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of no time three questions are read; the same command again continues, for what is kept costs nothing; of enough time all are."""
    file = write(tmp_path / "b.jsonl", [{"question": q, "cot": c, "answer": a, "group": g} for q, c, a in SUMS for g in "xy"])

    def questions(minutes: float) -> int:
        result = audit(file, "embedded", only=["leak"], minutes=minutes)
        longer = any("were read, which took longer than" in note for note in result["notes"])
        assert longer == (minutes < 1)
        assert {group["n"] for group in result["groups"]} == {result["groups"][0]["n"]}
        assert any(f"{result['groups'][0]['n']} of 6 questions of a group" in note for note in result["notes"])
        return result["groups"][0]["n"]

    assert questions(1e-6) == 3
    assert questions(1e-6) == 4
    assert questions(60) == 6
    assert main(["audit", str(file), "--reader", "embedded", "--budget", "-1"]) == 2
    assert "--budget -1.0: must be a number of minutes above 0" in capsys.readouterr().err
