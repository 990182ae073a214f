"""What a sentence causes: against exact enumeration on a vocabulary of four, and the bookkeeping around it."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from markovlm.analysis import explain as explain_module
from markovlm.analysis import resample as module
from markovlm.analysis.resample import (
    NO_ANSWER,
    Importance,
    Resampling,
    alternatives,
    divergence,
    first_sentence,
    resample,
    total_variation,
)
from markovlm.analysis.scoring import Scored, Variant
from markovlm.analysis.study import Study, open_study
from markovlm.analysis.units import Unit
from markovlm.cli.main import main
from markovlm.config import nest
from markovlm.errors import UserError
from markovlm.rollouts.hf import HFSampler
from markovlm.runs.targets import open_targets
from markovlm.tasks.answers import extract, is_correct
from support import studied, tiny
from support.exact import QUESTION, naive_logprobs

T = 3  # tokens of a CoT, each a sentence of its own
K = 3000
HEAT = 4.0  # of the CoTs: every token stays possible
ASKED = replace(QUESTION, answer="1")  # what it answers after some CoTs


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of one CoT of a model with the vocabulary 0 1 2 <eos>; every token is a sentence."""

    def by_token(pieces: Any, _: str) -> list[Unit]:
        return [Unit(piece, (i,), "sentence") for i, piece in enumerate(pieces)]

    monkeypatch.setattr(module, "units_of", by_token)
    monkeypatch.setattr(explain_module, "units_of", by_token)
    monkeypatch.setattr(module, "sentences", list)
    model = tiny.save_nano(tmp_path / "nano")
    keys = {
        "task": "arithmetic", "loading.device": "cpu", "loading.dtype": "float64", "prompt.answer_header": "0",
        "rollouts.max_cot_tokens": T, "rollouts.fixed_length": True, "rollouts.temperature": HEAT, "evaluation.temperature": HEAT,
        "objective.conditioning": "non_markovian",
        "evaluation.batch_size": 4096,
    }  # fmt: skip
    target = open_targets(str(model), "last", nest(keys))[0]
    setup = target.prepare()
    with torch.no_grad():  # its answers then depend on what the CoT is
        for parameter in setup.lm.causal_lm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return open_study(target, setup, split="test", limit=None, cots=1, folder=tmp_path / "out", examples=[ASKED])


class _As:
    """What `naive_logprobs` asks of a learner."""

    def __init__(self, lm: Any):
        self.lm = lm


def test_importance_is_that_of_exact_enumeration(nano: Study) -> None:
    [cot] = nano.cots
    _, [found] = resample(nano, nano.cots, Resampling(K))
    prompter, lm = nano.setup.prompter, nano.setup.lm
    question = prompter.cot_prompt(ASKED)
    learner: Any = _As(lm)
    read: dict[tuple[int, ...], str | None] = {}
    for ids in itertools.product((0, 1, 2), repeat=T):
        text = studied.answer_alone(lm, prompter, Variant(ASKED, 0, "x", ids, ids, nano.conditioning))
        read[ids] = extract(text, nano.setup.task.extractors[0])

    def distribution(prefix: tuple[int, ...], but: int | None) -> dict[str | None, float]:
        """Of final answers after `prefix`, whose next token is not `but`."""
        out: dict[str | None, float] = defaultdict(float)
        for rest in itertools.product((0, 1, 2), repeat=T - len(prefix)):
            if but is None or rest[0] != but:
                logp = naive_logprobs(learner, [*question, *prefix], rest, HEAT, [3]).sum().item() if rest else 0.0
                out[read[prefix + rest]] += np.exp(logp)
        total = sum(out.values())
        return {answer: p / total for answer, p in out.items()}

    moved = swayed = 0.0
    for i, sentence in enumerate(found.sentences):
        p, q = distribution(cot.ids[: i + 1], None), distribution(cot.ids[:i], cot.ids[i])
        names = sorted({*p, *q}, key=str)
        tv = 0.5 * sum(abs(p.get(a, 0.0) - q.get(a, 0.0)) for a in names)
        right = {a: float(is_correct(a, ASKED.answer, "number")) for a in names}
        assert sentence.tv is not None
        assert sentence.kl is not None
        assert sentence.tv["mean"] == pytest.approx(tv, abs=0.05)
        assert sentence.accuracy_with == pytest.approx(sum(p.get(a, 0.0) * right[a] for a in names), abs=0.04)
        assert sentence.accuracy_without == pytest.approx(sum(q.get(a, 0.0) * right[a] for a in names), abs=0.04)
        if all(q.get(a, 0.0) > 0.02 for a in p):
            kl = sum(v * np.log(v / q[a]) for a, v in p.items())
            assert sentence.kl["mean"] == pytest.approx(kl, abs=0.08)
        low, high = sentence.tv["ci95"]
        assert low <= sentence.tv["mean"] <= high
        moved, swayed = max(moved, tv), max(swayed, abs(sentence.accuracy_with - sentence.accuracy_without))
    assert min(moved, swayed) > 0.2  # there is something to find
    assert len(set(read.values())) > 2


def test_a_cut_is_sampled_once_and_kept(nano: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = resample(nano, nano.cots, Resampling(6))
    assert first["cost"] == {"cuts": T + 1, "samples": 6 * T, "tokens": 6 * (3 + 2 + 1)}
    drawn = [json.loads(line) for line in next(nano.folder.glob("resamples-*")).read_text().splitlines()]
    assert sorted(row["cut"] for row in drawn) == list(range(T))  # behind the last there is no budget: the CoT itself
    asked: list[int] = []
    real = HFSampler.sample

    def count(self: Any, requests: Any, decoding: Any) -> Any:
        asked.extend(len(request.streams) for request in requests)
        return real(self, requests, decoding)

    monkeypatch.setattr(HFSampler, "sample", count)
    assert resample(nano, nano.cots, Resampling(6))[0] == first
    assert asked == []
    resample(nano, nano.cots, Resampling(8))
    assert asked[:T] == [2] * T  # only the two that are new of each cut


def test_after_an_interruption_it_goes_on_and_finds_the_same(
    nano: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = resample(
        replace(nano, folder=tmp_path / "w", reader=replace(nano.reader, path=tmp_path / "w" / "r.jsonl")),
        nano.cots,
        Resampling(6),
    )[0]
    nano.setup.config = nano.setup.config.model_copy(
        update={"evaluation": nano.setup.config.evaluation.model_copy(update={"batch_size": 6})}
    )
    studied.stop_after(monkeypatch, HFSampler, "sample", 2)
    with pytest.raises(studied.Stopped):
        resample(nano, nano.cots, Resampling(6))
    monkeypatch.undo()
    kept = next(nano.folder.glob("resamples-*"))
    assert len(kept.read_text().splitlines()) == 2
    kept.write_text(kept.read_text() + '{"id": "torn')
    by_token: Any = lambda pieces, _: [Unit(piece, (i,), "sentence") for i, piece in enumerate(pieces)]  # noqa: E731
    monkeypatch.setattr(module, "units_of", by_token)
    monkeypatch.setattr(explain_module, "units_of", by_token)
    monkeypatch.setattr(module, "sentences", list)
    again = resample(nano, nano.cots, Resampling(6))[0]
    assert again["cots"] == whole["cots"]


def test_divergences_by_hand() -> None:
    """Counts (3, 1) and (1, 3): TV 1/2; KL with 1 added: (4/6) ln 2 + (2/6) ln 1/2 = ln(2)/3."""
    a, b = np.array([3.0, 1.0]), np.array([1.0, 3.0])
    assert total_variation(a, b) == pytest.approx(0.5)
    assert divergence(a, b, 1.0) == pytest.approx(np.log(2) / 3)
    assert divergence(a, a, 0.5) == 0


def test_what_was_written_instead() -> None:
    def answers(text: str | None) -> Scored:
        return Scored(-1.0, text, text, False)

    written = [(" So 5.", answers("5")), ("so 5", answers("6")), ("It is 7.", answers(None)), ("", answers("5"))]
    assert alternatives(written) == (
        {"text": " So 5.", "count": 2, "answers": {"5": 1, "6": 1}},
        {"text": "It is 7.", "count": 1, "answers": {NO_ANSWER: 1}},
        {"text": "", "count": 1, "answers": {"5": 1}},
    )


def test_only_what_chance_does_not_explain_is_coloured() -> None:
    sure = Importance("x", 0.0, 0.0, 9, 9, None, {"mean": 1.0, "ci95": [0.5, 1.0]}, 0.4, 0.01, None, None, None)
    assert sure.causes == 1.0
    assert replace(sure, p=0.43).causes == 0.0
    assert replace(sure, tv=None, p=None).causes == 0.0


def test_when_a_sentence_differs() -> None:
    assert not Resampling().differs(" 17+4=21,", "17+4=21")
    assert Resampling().differs("17+4=21", "17+4=22")
    assert not Resampling(below=0.8).differs("17+4=21", "17+4=22")  # one of seven characters
    assert Resampling(below=0.8).differs("17+4=21", "it is over")


def test_the_first_new_sentence() -> None:
    assert first_sentence("17+4=21,", "17+4=21,21+79=100,100+1=101") == "21+79=100,"
    assert first_sentence("She has 3. ", "She has 3. He has 4. Both 7.") == "He has 4. "
    assert first_sentence("abc", "abc") == ""


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--resamples 1"):
        Resampling(1)
    for arguments, says in (
        (["--how", "resample", "--by", "token"], "--by token"),
        (["--resamples", "5"], "are only for --how resample"),
        (["--how", "resample", "--different-below", "2"], "--different-below 2"),
    ):
        assert main(["explain", "embedded", "--out", str(tmp_path), *arguments]) == 2
        assert says in capsys.readouterr().err


def test_the_command_says_its_cost_and_shows_both_maps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["explain", "embedded", "--how", "resample", "--resamples", "4", "--limit", "2", "--out", str(tmp_path)]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "K = 4 continuations" in output.err
    assert "a new sentence differs where it is not equal" in output.err
    assert "causes: TV" in output.out
    page = next(tmp_path.glob("resample-*.html")).read_text(encoding="utf-8")
    assert "<script" not in page
    assert ">needed<" in page.replace("\n", "")
    assert "What the writer wrote instead" in page
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "resample"
    assert {"occlusion", "tv", "kl", "accuracy_drop", "chance", "p"} <= set(result["cots"][0]["sentences"][0])
    assert (
        main(["explain", "embedded", "--how", "resample", "--resamples", "4", "--question", "17+4+79", "--out", str(tmp_path)])
        == 0
    )
