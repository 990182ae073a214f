"""Shared pass, padded pass and one row at a time: the same states and the same gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from markovlm.config.model import Loading, Lora
from markovlm.models.load import LanguageModel, load_model
from markovlm.models.sequences import Batch, Row, Sharing, batch_of, forked_batch, prefill, span_hidden
from support import naive, tiny

# Prefixes shorter and longer than Gemma-3's window of 6, continuations that cross it, one-token rows, late starts.
LONG, SHORT, MIDDLE = tuple(range(10, 24)), (30, 31, 32), (40, 41, 42, 43, 44, 45, 46)
RAGGED = batch_of(
    [
        (LONG, (50, 51, 52, 53, 54, 55, 56, 57), 0),
        (SHORT, (60,), 0),
        (LONG, (50, 51), 1),
        (MIDDLE, (70, 71, 72, 73), 2),
        (SHORT, (61, 62, 63, 64, 65, 66, 67), 3),
    ]
)
ONE_TOKEN = batch_of([(LONG, (50,), 0), (SHORT, (60,), 0), (LONG, (51,), 0)])
FORKED = forked_batch(  # over trunks longer and shorter than the window: forks late, early, at the end, and beyond it
    [
        (LONG, (*LONG[:11], 70, 71), (50, 51)),
        (LONG, (*LONG[:2], 72, 73, 74), (50,)),
        (LONG, LONG, (52, 53)),
        (LONG, LONG[:5], (54,)),
        (SHORT, (*SHORT, 61, 62), (63, 64, 65)),
    ]
)
BATCHES = {"ragged": RAGGED, "one token": ONE_TOKEN, "forked": FORKED}


@pytest.fixture(scope="module", params=[*tiny.ARCHITECTURES, "gemma3 eager", "gpt2 eager"])
def model(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> tuple[str, LanguageModel]:
    """Name (of its tolerance) and model with an adapter that does something."""
    name, _, eager = request.param.partition(" ")
    loading = Loading(device="cpu", dtype="float32" if eager else "float64", attention="eager" if eager else "auto")
    lm = load_model(str(tiny_models[name]), loading, lora=Lora(rank=2, alpha=4))
    tiny.shake(lm)
    return "float32" if eager else name, lm


def one_by_one(lm: LanguageModel, batch: Batch) -> Tensor:
    """[M, V] logits that predict the scored tokens."""
    rows = [naive.row_logits(lm, batch.prefixes[row.prefix][: row.keep], row.tokens)[row.start :] for row in batch.rows]
    return torch.cat(rows)


@pytest.mark.parametrize("sharing", ["shared", "padded"])
@pytest.mark.parametrize("batch", BATCHES)
def test_values_and_gradients_are_those_of_each_row_alone(model: tuple[str, LanguageModel], batch: str, sharing: Sharing) -> None:
    name, lm = model
    spans = span_hidden(lm, BATCHES[batch], sharing)
    expected = one_by_one(lm, BATCHES[batch])
    naive.assert_close(lm.logits(spans.hidden), expected, naive.TOLERANCE[name])

    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).reshape(expected.shape).roll(5, 0)
    ours = naive.gradient(lm, lambda: (lm.logits(span_hidden(lm, BATCHES[batch], sharing).hidden) * weights).sum())
    theirs = naive.gradient(lm, lambda: (one_by_one(lm, BATCHES[batch]) * weights).sum())
    assert theirs.abs().max() > 0.1
    naive.assert_close(ours, theirs, naive.TOLERANCE[name])


def test_targets_and_rows_are_the_scored_tokens_in_order(model: tuple[str, LanguageModel]) -> None:
    spans = span_hidden(model[1], RAGGED)
    assert spans.targets.tolist() == [50, 51, 52, 53, 54, 55, 56, 57, 60, 51, 72, 73, 64, 65, 66, 67]
    assert spans.row.tolist() == [0] * 8 + [1] + [2] + [3] * 2 + [4] * 4


@pytest.mark.parametrize("sharing", ["shared", "padded"])
def test_rows_do_not_see_each_other(model: tuple[str, LanguageModel], sharing: Sharing) -> None:
    """Other tokens in row 4, other padding: the rest stays as it was."""
    name, lm = model
    before = span_hidden(lm, RAGGED, sharing)
    changed = Batch(RAGGED.prefixes, (*RAGGED.rows[:4], Row(1, (90, 91, 92, 93, 94, 95, 96), 3)))
    after = span_hidden(lm, changed, sharing)
    others = before.row != 4
    naive.assert_close(after.hidden[others], before.hidden[others], naive.TOLERANCE[name])
    assert (after.hidden[~others] - before.hidden[~others]).abs().max() > 0.01


def test_padding_id_is_never_read(model: tuple[str, LanguageModel], monkeypatch: pytest.MonkeyPatch) -> None:
    name, lm = model
    before = [span_hidden(lm, RAGGED, sharing).hidden for sharing in ("shared", "padded")]
    monkeypatch.setattr(LanguageModel, "pad_id", property(lambda self: 77))
    after = [span_hidden(lm, RAGGED, sharing).hidden for sharing in ("shared", "padded")]
    for old, new in zip(before, after, strict=True):
        naive.assert_close(new, old, naive.TOLERANCE[name])


def test_the_prefix_pass_runs_once_for_a_group(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared is what it says: tokens that enter the decoder."""
    lm = tiny.load(tiny_models["llama"])
    seen: list[int] = []
    decode = LanguageModel.decode
    monkeypatch.setattr(LanguageModel, "decode", lambda self, ids, **kw: seen.append(ids.numel()) or decode(self, ids, **kw))
    group = batch_of([(LONG, (50 + i, 51, 52, 53), 0) for i in range(5)])
    span_hidden(lm, group, "shared")
    assert seen == [14, 5 * 3]  # the prompt once, then every CoT but its last token
    seen.clear()
    span_hidden(lm, group, "padded")
    assert seen == [5 * (14 + 3)]


def test_prefill_ends_all_prefixes_at_one_column(tiny_models: dict[str, Path]) -> None:
    lm = tiny.load(tiny_models["gpt2"])
    filled = prefill(lm, [LONG, SHORT])
    assert filled.lengths.tolist() == [14, 3]
    assert filled.mask.tolist() == [[1] * 14, [0] * 11 + [1] * 3]
    alone = prefill(lm, [SHORT])
    naive.assert_close(filled.last_hidden[1], alone.last_hidden[0], 1e-10)


def test_equal_prefixes_are_shared_and_sizes_counted() -> None:
    assert RAGGED.prefixes == (LONG, SHORT, MIDDLE)
    assert [row.prefix for row in RAGGED.rows] == [0, 1, 0, 2, 1]
    assert RAGGED.tokens() == 5 * 8 + 3 * 14


@pytest.mark.parametrize(
    "batch", [Batch((), ()), Batch(((1,),), (Row(0, ()),)), Batch(((),), (Row(0, (1,)),)), Batch(((1,),), (Row(0, (1, 2), 2),))]
)
def test_an_empty_part_is_refused(tiny_models: dict[str, Path], batch: Batch) -> None:
    with pytest.raises(ValueError, match="at least one scored token"):
        span_hidden(tiny.load(tiny_models["llama"]), batch)


def test_a_fork_computes_only_what_follows_the_common_part() -> None:
    assert FORKED.prefixes == (LONG, SHORT)
    assert FORKED.rows == (
        Row(0, (70, 71, 50, 51), 2, 11),
        Row(0, (72, 73, 74, 50), 3, 2),
        Row(0, (52, 53), 0, 14),
        Row(0, (54,), 0, 5),
        Row(1, (61, 62, 63, 64, 65), 2, 3),
    )
    early = forked_batch([(LONG, (*LONG[:4], 70), (50,)), (LONG, (*LONG[:2], 70), (51,)), (SHORT, (*SHORT[:1], 70), (52,))])
    assert early.prefixes == (LONG[:4], SHORT[:1])  # what no row goes along with is not computed
    with pytest.raises(ValueError, match="begin as its trunk"):
        forked_batch([(LONG, (1, 2), (3,))])
