"""Variants read together are what plain transformers says of each alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.analysis import scoring
from markovlm.analysis.scoring import Scored, Variant, encode_cot, logprobs, read_again, read_variants
from markovlm.rollouts.drafts import DraftedReading
from markovlm.runs.setup import Setup, prepare
from markovlm.tasks.base import LETTERS, Example
from support import naive, studied, tiny
from support.fake import FakeSampler

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CHOOSE = Example("m/1", "Which is a metal?", "A", ("iron", "wood", "sand"))


def shaken(model: Path, **overrides: object) -> Setup:
    """With an adapter that does something."""
    setup = prepare(tiny.config(model, **overrides), trainable=True)
    tiny.shake(setup.lm)
    return setup


def variants_of(setup: Setup, example: Example, text: str, conditioning: str) -> list[Variant]:
    """Forks at the front, in the middle, at the end, and past the end of a CoT; nothing left of it; something else."""
    ids = encode_cot(setup.prompter, text)
    n = len(ids)
    made = {
        "whole": ids, "no first": ids[1:], "no middle": ids[: n // 2] + ids[n // 2 + 1 :], "no last": ids[:-1],
        "front": ids[: n // 3], "empty": (), "longer": (*ids, *ids[:3]), "other": tuple(reversed(ids)), "one": (50,),
    }  # fmt: skip
    return [Variant(example, 0, name, some, ids, conditioning) for name, some in made.items()]


def some_variants(setup: Setup) -> list[Variant]:
    return [
        variant
        for conditioning in ("markovian", "non_markovian")
        for example, text in zip(tiny.QUESTIONS, ("1+22=23", "7+8=15, 15+9 is 24!", "x", "so 5+6=11"), strict=True)
        for variant in variants_of(setup, example, text, conditioning)
    ]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_variants_read_together_are_each_read_alone(tiny_models: dict[str, Path], architecture: str) -> None:
    setup = shaken(tiny_models[architecture], evaluation__batch_size=7)
    variants = some_variants(setup)
    read = read_variants(setup, setup.sampler(), variants)
    expected = [studied.read_alone(setup.lm, setup.prompter, variant) for variant in variants]
    assert max(expected) - min(expected) > 0.5  # or nothing is shown
    tolerance = naive.TOLERANCE[architecture]
    for one, value in zip(read, expected, strict=True):
        assert one.logprob == pytest.approx(value, abs=10 * tolerance, rel=tolerance)
    for one, variant in zip(read[::4], variants[::4], strict=True):
        assert one.answer == studied.answer_alone(setup.lm, setup.prompter, variant)


def test_neither_order_nor_the_size_of_a_pass_matters(tiny_models: dict[str, Path]) -> None:
    setup = shaken(tiny_models["gpt2"])
    variants = some_variants(setup)
    first = logprobs(setup, variants, 3)
    assert logprobs(setup, variants[::-1], 50) == pytest.approx(first[::-1], abs=1e-10)
    total = logprobs(setup, variants[:1], 1, "sum")[0]
    assert total == pytest.approx(first[0] * len(setup.prompter.target_ids(variants[0].example)), abs=1e-10)


def test_an_answer_is_written_only_where_it_is_asked_for(tiny_models: dict[str, Path]) -> None:
    setup = shaken(tiny_models["gpt2"])
    asked = some_variants(setup)[:2]
    both = read_variants(setup, setup.sampler(), [asked[0], replace(asked[1], write=False)])
    assert both[0].answer is not None
    assert both[0].correct is not None
    assert both[1] == Scored(both[1].logprob)


def test_a_number_that_the_budget_cut_is_no_answer(tiny_models: dict[str, Path]) -> None:
    setup = shaken(tiny_models["llama"])
    number, ends = (
        setup.lm.tokenizer.encode(" 23", add_special_tokens=False),
        setup.lm.tokenizer.encode("\n", add_special_tokens=False),
    )
    variant = some_variants(setup)[0]
    for written, extracted in ((number, None), (number + ends, "23")):
        sampler = FakeSampler(lambda _, __, ids=written: ids, terminators=ends)
        [one] = read_variants(setup, sampler, [variant])
        assert (one.answer, one.extracted, one.correct) == (" 23", extracted, extracted == variant.example.answer)
        assert one.answer_ended == (extracted is not None)
        assert read_again(setup, variant, replace(one, extracted="?", correct=None)) == one


def test_letters_are_extracted_and_a_likelihood_extractor_goes_by_the_choices(tiny_models: dict[str, Path]) -> None:
    setup = shaken(tiny_models["gpt2"], task="arc", data__path=str(FIXTURES / "arc" / "hub.jsonl"))
    examples = [CHOOSE, replace(CHOOSE, id="m/2", answer="C"), replace(CHOOSE, id="m/3", choices=("iron", "wood"))]
    variants = [variant for example in examples for variant in variants_of(setup, example, "iron is", "non_markovian")[:4]]
    by_text = read_variants(setup, setup.sampler(), variants)
    assert all(one.correct == (one.extracted == v.example.answer) for one, v in zip(by_text, variants, strict=True))

    setup.task = replace(setup.task, extractors=("likelihood", "word_boundary"))  # pyright: ignore[reportArgumentType]
    read = read_variants(setup, setup.sampler(), variants)
    for one, variant in zip(read, variants, strict=True):
        letters = LETTERS[: len(variant.example.choices)]
        prefix = studied._prefix(setup.prompter, variant)
        values = [
            studied.plain_logprob(setup.lm, prefix, setup.prompter.answer_ids(variant.example, letter), total=True)
            for letter in letters
        ]
        assert one.extracted == letters[values.index(max(values))]
        assert one.correct == (one.extracted == variant.example.answer)
        assert one.logprob == pytest.approx(studied.read_alone(setup.lm, setup.prompter, variant), abs=1e-9)


def test_text_has_a_likelihood_and_no_answer(tiny_models: dict[str, Path]) -> None:
    setup = shaken(tiny_models["gpt2"], task="wiki")
    variant = Variant(Example("w/1", "The ship sailed", " to sea"), 0, "raw", (20, 21), (20, 21), "markovian")
    [read] = read_variants(setup, setup.sampler(), [variant])
    assert read == Scored(read.logprob)
    assert read.logprob == pytest.approx(studied.read_alone(setup.lm, setup.prompter, variant), abs=1e-10)


def test_special_token_strings_in_a_cot_stay_text(tiny_models: dict[str, Path], byte_model: Path) -> None:
    for model in (tiny_models["gpt2"], byte_model):
        setup = prepare(tiny.config(model))
        ids = encode_cot(setup.prompter, "so <eos> 4")
        assert len(ids) == 10  # a token a character
        assert not {tiny.PAD, tiny.BOS, tiny.EOS, 3} & set(ids)
        assert setup.prompter.text(ids) == "so <eos> 4"
    assert encode_cot(setup.prompter, "") == ()


def test_a_reading_is_known_by_what_decides_it() -> None:
    one = Variant(CHOOSE, 0, "raw", (1, 2), (1, 2), "non_markovian")
    assert replace(one, name="else", trunk=(1,), write=False).key == one.key
    others = (
        replace(one, ids=(12,)), replace(one, number=1), replace(one, conditioning="markovian"),
        replace(one, example=replace(CHOOSE, id="m/2")), replace(one, example=replace(CHOOSE, answer="B")),
        replace(one, example=replace(CHOOSE, question="Which is none?")),
        replace(one, example=replace(CHOOSE, choices=("wood", "iron", "sand"))),
    )  # fmt: skip
    assert len({one.key, *(other.key for other in others)}) == 1 + len(others)


@given(st.lists(st.integers(1, 50), max_size=7), st.integers(1, 4), st.integers(20, 120), st.integers(0, 40))
def test_no_other_passes_of_like_length_cost_less(lengths: list[int], rows: int, tokens: int, each: int) -> None:
    """Against every way to cut the sorted lengths."""
    batches = scoring._batches(lengths, rows, tokens, each)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))

    def cost(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(batch) + each for batch in batches)

    ordered = sorted(lengths)
    found = [[lengths[i] for i in batch] for batch in batches]
    cuts = [
        [ordered[i:j] for i, j in itertools.pairwise((0, *cut, len(ordered)))]
        for count in range(len(ordered))
        for cut in itertools.combinations(range(1, len(ordered)), count)
    ]
    assert [one for batch in found for one in batch] == ordered
    fitting = [cut for cut in cuts if all(len(b) == 1 or (len(b) <= rows and len(b) * b[-1] <= tokens) for b in cut)]
    assert cost(found) == min(map(cost, fitting), default=0)
    assert not found or found in fitting


def test_score_and_answer_in_one_pass_are_those_of_two(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The gold answer as the draft of the greedy one; counted, so that the one pass is really taken."""
    setup = shaken(tiny_models["llama"], evaluation__batch_size=7)
    variants = some_variants(setup)
    passes: list[int] = []
    add = DraftedReading.add
    monkeypatch.setattr(
        DraftedReading, "add", lambda self, batch, *how: (passes.append(len(batch.rows)), add(self, batch, *how))[1]
    )
    one = read_variants(setup, setup.sampler(), variants)
    assert sum(passes) == len(variants)
    setup.lm.takes_back = False
    two = read_variants(setup, setup.sampler(), variants)
    assert sum(passes) == len(variants)
    assert [read.answer for read in one] == [read.answer for read in two]
    assert [read.logprob for read in one] == pytest.approx([read.logprob for read in two], abs=1e-10)
    assert len({read.answer for read in one}) > 1
