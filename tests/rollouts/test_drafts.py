"""The gold answer as the draft of the greedy one: what two passes say, in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from markovlm.config.model import Loading
from markovlm.models.language import LanguageModel
from markovlm.models.load import load_model
from markovlm.models.sequences import Batch, batch_of, forked_batch, prefill, span_hidden
from markovlm.rollouts.drafts import DraftedReading, read_with_drafts
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.reader import score_answers
from markovlm.rollouts.types import CoT, Decoding, SampleRequest
from support import tiny
from support.architectures import save_family

PREFIXES = ((5, 6, 7, 8, 9), (40, 41))
BUDGET = 6


def befores(count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(prefix, CoT and header) of rows of several lengths."""
    return [(PREFIXES[n % 2], tuple(10 + (7 * n + i) % 80 for i in range(2 + n % 5))) for n in range(count)]


@pytest.fixture(scope="module", params=["llama", "qwen3", "gpt2"])
def lm(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> LanguageModel:
    """About a quarter of all tokens end an answer."""
    model = tiny.load(tiny_models[request.param], shaken=True)
    model.terminators = tuple(range(2, 100, 4))
    return model


GREEDY = Decoding(BUDGET, temperature=0.0)


def greedily(lm: LanguageModel, rows: Any, decoding: Decoding = GREEDY) -> list[CoT]:
    requests = [SampleRequest(prefix + before, (("greedy",),)) for prefix, before in rows]
    return [group[0] for group in HFSampler(lm).sample(requests, decoding)]


def assert_as_two_passes(lm: LanguageModel, rows: Any, answers: list[tuple[int, ...]], decoding: Decoding = GREEDY) -> list[CoT]:
    batch = batch_of([(p, before + answer, len(before)) for (p, before), answer in zip(rows, answers, strict=True)])
    found = read_with_drafts(lm, batch, decoding)
    assert found is not None
    expected = greedily(lm, rows, decoding)
    for one, other in zip(found, expected, strict=True):
        assert (one.read.tokens, one.read.kept, one.read.ended) == (other.tokens, other.kept, other.ended)
        assert one.read.behavior_logp == pytest.approx(other.behavior_logp, abs=1e-4)
    with torch.no_grad():
        scores = score_answers(lm, batch).logp_mean.tolist()
    assert [one.logp_mean for one in found] == pytest.approx(scores, abs=1e-4)
    return expected


def test_answers_and_log_probs_are_those_of_two_passes(lm: LanguageModel) -> None:
    """Gold answers that are the greedy one, leave it at the first, second or last token, end before it or go on behind it."""
    rows = befores(24)
    greedy = [cot.tokens for cot in greedily(lm, rows)]
    assert {1, 2, 3, 4} <= {len(tokens) for tokens in greedy}  # some end at once, some late, and all budgets are met
    answers = []
    for n, tokens in enumerate(greedy):
        wrong = (tokens[n % len(tokens)] + 1) % 100
        changed = (*tokens[: n % len(tokens)], wrong, *tokens[n % len(tokens) + 1 :])
        answers.append([tokens, changed, tokens[:1], (*tokens, 50, 51), (wrong,), tokens[: max(1, len(tokens) - 1)]][n % 6])
    for budget in (BUDGET, 2, 1):
        assert_as_two_passes(lm, rows, answers, Decoding(budget, temperature=0.0))


def test_stop_strings_end_an_answer_behind_something_that_is_no_space(tiny_models: dict[str, Path]) -> None:
    """A quarter of all characters stops; white space in front does not count. Answers on both sides of a stop."""
    model = tiny.load(tiny_models["llama"], shaken=True)
    stop = tuple(tiny.ALPHABET[::4])  # the line break among them
    decoding = Decoding(BUDGET, 0.0, stop=stop, stop_after_text=True)
    rows = befores(24)
    plain = [cot.ids for cot in greedily(model, rows)]
    answers = [[tokens, tokens[:2], (*tokens[:2], 50, 51), (60,)][n % 4] for n, tokens in enumerate(plain)]
    expected = assert_as_two_passes(model, rows, answers, decoding)
    assert any(cot.ended and len(cot.tokens) < BUDGET for cot in expected)
    for cot, before in zip(expected, plain, strict=True):
        text = model.tokenizer.decode(before)
        behind = [at for at, char in enumerate(text) if char in stop and (text[:at].strip() or char.strip())]
        assert model.tokenizer.decode(cot.ids) == (text[: behind[0]] if behind else text)


def test_answers_of_several_batches_are_written_together(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that differ in length, behind prefixes computed once; some rows are only scored. Few rows side by side, few tokens, or all."""
    rows = befores(24)
    monkeypatch.setattr(lm, "terminators", ())  # every answer is longer than its draft
    whole = batch_of([(p, (*before, 60, 61), len(before)) for p, before in rows])
    parts = [Batch(whole.prefixes, whole.rows[at : at + 6]) for at in range(0, 24, 6)]
    written = [number % 3 > 0 for number in range(24)]
    expected = read_with_drafts(lm, whole, GREEDY)
    assert expected is not None
    passes: list[int] = []
    decode = LanguageModel.decode
    monkeypatch.setattr(
        LanguageModel, "decode", lambda self, ids, **options: (passes.append(len(ids)), decode(self, ids, **options))[1]
    )
    steps: list[int] = []
    for most, tokens in ((24, None), (5, None), (24, 60)):
        passes.clear()
        reading = DraftedReading(lm, GREEDY, most, tokens)
        prefilled = prefill(lm, whole.prefixes)
        for at, part in enumerate(parts):
            reading.add(part, prefilled, written[6 * at : 6 * at + 6])
        found = reading.finish()
        steps.append(len(passes) - 1 - len(parts))
        for one, other, write in zip(found, expected, written, strict=True):
            assert one.logp_mean == pytest.approx(other.logp_mean, abs=1e-5)
            assert one.read.tokens == (other.read.tokens if write else other.read.tokens[: len(one.read.tokens)])
            if write:
                assert one.read.behavior_logp == pytest.approx(other.read.behavior_logp, abs=1e-4)
        assert any(len(one.read.tokens) < len(other.read.tokens) for one, other in zip(found, expected, strict=True))
    assert steps[0] < BUDGET
    assert min(steps[1:]) > BUDGET


def test_right_answers_cost_no_pass_of_their_own(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = befores(12)
    right = [cot.ids for cot in greedily(lm, rows)]
    rows, right = zip(*[(row, answer) for row, answer in zip(rows, right, strict=True) if answer], strict=True)
    batch = batch_of([(p, before + answer, len(before)) for (p, before), answer in zip(rows, right, strict=True)])
    passes: list[int] = []
    decode = LanguageModel.decode
    monkeypatch.setattr(
        LanguageModel, "decode", lambda self, ids, **options: (passes.append(len(ids)), decode(self, ids, **options))[1]
    )
    found = read_with_drafts(lm, batch, GREEDY)
    assert found is not None
    assert [one.read.ids for one in found] == list(right)
    assert passes == [2, len(set(batch.rows))]  # the prefixes, the rows


def test_equal_rows_are_read_once_and_all_told(lm: LanguageModel) -> None:
    rows = befores(3) * 4
    assert_as_two_passes(lm, rows, [(60,), (61,), (62,)] * 4)


def test_the_vocabulary_in_parts(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("markovlm.models.logprobs.chunk_elements", lambda device: 300)
    assert_as_two_passes(lm, befores(8), [(60 + n, 3) for n in range(8)])


def test_a_cache_that_forgets_takes_no_token_back(tiny_models: dict[str, Path]) -> None:
    """Gemma-3's sliding window: nothing is read this way, and nothing wrongly."""
    lm = tiny.load(tiny_models["gemma3"], shaken=True)
    assert read_with_drafts(lm, batch_of([((5, 6, 7), (8, 9), 1)]), GREEDY) is None


def test_nothing_is_taken_back_where_attention_counts_columns(tmp_path: Path) -> None:
    """MPT without an adapter: padding in front does not matter to it, a hidden token in the middle does."""
    lm = load_model(str(save_family("mpt", tmp_path)), Loading(device="cpu", dtype="float32"))
    assert lm.caching == "padded"
    assert not lm.takes_back
    assert read_with_drafts(lm, batch_of([((5, 6, 7), (8, 9), 1)]), GREEDY) is None
    forked = forked_batch([((5, 6, 7, 8, 9), (5, 6, 20), (21, 22)), ((5, 6, 7, 8, 9), (5, 6, 7, 8, 9, 30), (31,))])
    with torch.no_grad():
        shared, padded = (span_hidden(lm, forked, sharing).hidden for sharing in ("shared", "padded"))
    torch.testing.assert_close(shared, padded, rtol=0, atol=1e-5)
