"""The texts a model of word problems is made of: nothing held out, weights where they belong, a tokenizer that loses nothing."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest

from markovlm.tasks import get_task
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.prompts import choose_style
from markovlm.tasks.words_data import draw
from support.scripts import load

words_of = load("words_splits").words_of
SCRIPTS = Path(__file__).parents[1] / "scripts"


def maker() -> Any:
    return load("make_words_model")


@functools.cache
def tokenizer() -> Any:
    return maker().build_tokenizer()


def made(n: int) -> list[tuple[list[int], list[float]]]:
    texts = maker().WordTexts(maker().RECIPE, 0, tokenizer())
    return [texts.make() for _ in range(n)]


@pytest.mark.parametrize(
    "text",
    [
        "<bos><|q|>Maya has 14 pears. She buys 3 bags of 5.<|think|>First Maya has 14 pears. 3 bags of 5 are 3 * 5 = 15.<|answer|>29<eos>",
        "Zoë paid $3.50 × 2 — “twice”\n\tno word is unknown 木",
    ],
)
def test_the_tokenizer_round_trips(text: str) -> None:
    ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert tokenizer().decode(ids) == text
    assert tokenizer().unk_token_id not in ids


def test_numbers_are_digits_and_held_out_words_are_spelt() -> None:
    assert tokenizer().tokenize("29 - 8 = 21") == ["2", "9", "Ġ-", "Ġ8", "Ġ=", "Ġ2", "1"]
    vocabulary = {token.lstrip("Ġ") for token in tokenizer().get_vocab()}
    assert not (vocabulary & (words_of("test") | words_of("dev"))) - {"Sam", "Tom"}  # short enough to be pieces of others
    examples = get_task("words").load(LoadRequest("test", limit=20)).examples
    assert choose_style(tokenizer(), examples) == "compact"


def test_training_texts_have_nothing_held_out() -> None:
    foreign = words_of("dev") | words_of("test")
    for ids, weights in made(400):
        assert len(ids) == len(weights)
        assert not foreign & set(re.findall(r"\w+", tokenizer().decode(ids)))


def test_a_held_out_problem_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker(), "draw", lambda spec, split, seed, index: draw(spec, "test", seed, index))
    with pytest.raises(RuntimeError, match="held out and must not be trained on"):
        made(1)


def test_what_is_weighted_in_a_training_text() -> None:
    """In the prompt only names and things that stood there before; in redacted texts only results; results four times."""
    end, think, redacted = (tokenizer().convert_tokens_to_ids(token) for token in ("<|answer|>", "<|think|>", "<|redacted|>"))
    seen = set()
    for ids, weights in made(300):
        start, stop = ids.index(think) + 1, ids.index(end)
        assert set(weights[:start]) <= {0.0, 1.0}
        cot = tokenizer().decode(ids[start:stop])
        if redacted in ids:
            assert set(weights[start : stop + 1]) <= {0.0, 4.0}
            seen.add("redacted")
        elif cot.startswith("First"):
            results = [w for w in weights[start:stop] if w == 4.0]
            assert len(results) == sum(map(len, re.findall(r"= (\d+)", cot)))
            assert weights[start] < 0.4  # the first token tells the kind of CoT: drawn often, wanted seldom
            seen.add("worked")
    assert seen == {"redacted", "worked"}


def test_one_step_in_sight_is_answered_whatever_the_cot_and_more_steps_are_guessed() -> None:
    one_step, more = [0, 0], [0, 0]
    recipe = maker().RECIPE
    for steps, count in (({1: 1.0}, one_step), ({3: 1.0}, more)):
        texts = maker().WordTexts(maker().replace(recipe, term_weights=steps, redacted=0.0, slips=0.0), 0, tokenizer())
        drawn: list[int] = []
        draw_one = texts._draw
        texts._draw = lambda k, draw_one=draw_one, drawn=drawn: (p := draw_one(k), drawn.append(p.answer))[0]
        for _ in range(200):
            text = tokenizer().decode(texts.make()[0])
            cot, answer = text.split("<|think|>")[1].split("<|answer|>")
            if not cot.startswith("First"):
                count[0] += answer == f"{drawn[-1]}<eos>"
                count[1] += 1
    assert one_step[0] == one_step[1] > 60  # half of the texts
    assert more[1] > 25
    assert more[0] < 0.3 * more[1]  # a guess: normal error of a quarter of the answer, at least 5
