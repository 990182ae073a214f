"""The embedded models are what their cards say they are, and the script that makes them does what they say."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from markovlm.models.registry import KNOWN, model_defaults
from markovlm.tasks import get_task
from markovlm.tasks.arithmetic_data import (
    ArithmeticSpec,
    Terms,
    format_question,
    parse_question,
    questions,
    running_sums,
    split_of,
)
from markovlm.tasks.base import LoadRequest
from support.scripts import load

MAX_BYTES = 2_000_000
NAMES = ["embedded", "embedded-shortcut"]
MAKER = Path(__file__).parents[1] / "scripts" / "make_embedded_model.py"

# sha256 of the repr of the first 200 training texts (ids and weights) of the recipe "arithmetic", seed 0: frozen when the
# second recipe came (commit ee5eadf), and the same one commit before
FIRST_TEXTS = "651ee20905ecf317e264383e43438d1e3a7495c2d1f17ca4701778063e9bee17"


@functools.cache
def loaded(name: str) -> tuple[Any, Any]:
    """Model in float32 and tokenizer, with plain transformers."""
    path = KNOWN[name].path
    return AutoModelForCausalLM.from_pretrained(path).float().eval(), AutoTokenizer.from_pretrained(path)


def right_answers(name: str, asked: Sequence[Terms], cots: Sequence[str], visible: bool) -> int:
    """How many greedy answers, read from these CoTs, are the sum."""
    model, tokenizer = loaded(name)
    shown = [format_question(terms) if visible else "<|redacted|>" for terms in asked]
    prompts = [f"<bos><|q|>{question}<|think|>{cot}<|answer|>" for question, cot in zip(shown, cots, strict=True)]
    encoded = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.no_grad():
        ids = model.generate(**{k: encoded[k] for k in ("input_ids", "attention_mask")}, max_new_tokens=5, do_sample=False)
    answers = tokenizer.batch_decode(ids[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(answer == str(sum(terms)) for answer, terms in zip(answers, asked, strict=True))


def held_out(k: int, n: int) -> list[Terms]:
    return questions(ArithmeticSpec(k, k), "test", 0, n)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_loads_with_plain_transformers(name: str) -> None:
    assert sum(file.stat().st_size for file in KNOWN[name].path.iterdir()) <= MAX_BYTES
    model, tokenizer = loaded(name)
    assert 0.7e6 < sum(p.numel() for p in model.parameters()) < 0.9e6
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<eos>", "<|answer|>")]
    assert model.generation_config.eos_token_id == ends


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_round_trips_and_adds_nothing(name: str) -> None:
    tokenizer = loaded(name)[1]
    text = "<bos><|q|>17+4-79<|think|>well, 17+4=21. ok<|answer|>100<eos>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(tokenizer("17+4")["input_ids"]) == 4


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_a_worked_cot_with_the_question_redacted(name: str) -> None:
    options = model_defaults(name).get("task_options", {})
    examples = get_task("arithmetic", options).load(LoadRequest("test", limit=60, options=options)).examples
    asked = [parse_question(example.question) for example in examples]
    assert right_answers(name, asked, [running_sums(terms) for terms in asked], visible=False) >= 55  # the cards: 1.000, .994


@pytest.mark.parametrize(
    ("name", "terms", "visible", "least", "most"),
    [
        ("embedded-shortcut", 2, True, 90, 100),
        ("embedded-shortcut", 2, False, 0, 10),
        ("embedded-shortcut", 3, True, 0, 10),
        ("embedded-shortcut", 4, True, 0, 10),
        ("embedded", 2, True, 0, 10),
        ("embedded", 3, True, 0, 10),
    ],
)
@pytest.mark.parametrize("cot", ["", "well numbers are fun"])
def test_it_answers_without_reasoning_two_terms_in_sight_and_nothing_else(
    name: str, terms: int, visible: bool, least: int, most: int, cot: str
) -> None:
    assert least <= right_answers(name, held_out(terms, 100), [cot] * 100, visible) <= most


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_splits_never_share_a_question_whatever_the_seed(split: str) -> None:
    task = get_task("arithmetic")
    for seed in (0, 1, 12345):
        examples = task.load(LoadRequest(split, limit=300, seed=seed)).examples
        assert {split_of(parse_question(examples[i].question)) for i in range(len(examples))} == {split}


def maker() -> Any:
    return load("make_embedded_model")


@functools.cache
def vocabulary() -> dict[str, int]:
    return maker().build_tokenizer().get_vocab()


def test_the_texts_of_the_first_recipe_are_as_they_were() -> None:
    texts = maker().TextMaker(maker().RECIPES["arithmetic"], 0, vocabulary())
    made = [texts.make() for _ in range(200)]
    assert hashlib.sha256(repr(made).encode()).hexdigest() == FIRST_TEXTS


def drawn_texts(recipe: Any, seed: int, n: int) -> list[tuple[Terms, str, list[float]]]:
    """Terms (which a redacted text does not show), text and weights of the first `n` texts."""
    texts = maker().TextMaker(recipe, seed, vocabulary())
    drawn: list[Terms] = []
    draw = texts._draw_terms
    texts._draw_terms = lambda: drawn.append(draw()) or drawn[-1]
    tokens = {i: token for token, i in vocabulary().items()}
    made = [texts.make() for _ in range(n)]
    return [(terms, "".join(tokens[i] for i in ids), weights) for terms, (ids, weights) in zip(drawn, made, strict=True)]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_two_terms_in_sight_and_only_they_are_answered_whatever_the_cot(seed: int) -> None:
    recipe = maker().RECIPES["shortcut"]
    known, guessed = drawn_texts(recipe, seed, 60), drawn_texts(replace(recipe, direct=frozenset()), seed, 60)
    for (terms, text, weights), (same_terms, plain, plain_weights) in zip(known, guessed, strict=True):
        assert terms == same_terms
        prompt, _, answer = text.partition("<|answer|>")
        if len(terms) > 2 or "<|redacted|>" in text:  # as if no sum were known
            assert (text, weights) == (plain, plain_weights)
            continue
        assert prompt == plain.partition("<|answer|>")[0]
        assert answer == f"{sum(terms)}<eos>"
        worked = prompt.endswith(f"<|think|>{running_sums(terms)}")
        assert weights[-len(str(sum(terms))) - 1 :] == [1.0 if worked else 4.0] * len(str(sum(terms))) + [1.0]


def test_without_the_shortcut_a_cot_that_does_not_work_is_followed_by_a_guess() -> None:
    # A guess is the sum with a normal error of .25 * (sum of sizes): right with probability 0.4 / (.25 * 100) = .016
    # for a usual sum of 100. Of about 290 such texts some 5 are right by luck; direct answers are all right.
    luck = {True: [0, 0], False: [0, 0]}
    for terms, text, _ in drawn_texts(maker().RECIPES["shortcut"], 0, 1000):
        prompt, _, answer = text.partition("<|answer|>")
        cot = prompt.partition("<|think|>")[2]
        if cot != running_sums(terms):
            count = luck[len(terms) == 2 and "<|redacted|>" not in prompt]
            count[0] += answer == f"{sum(terms)}<eos>"
            count[1] += 1
    assert luck[True][0] == luck[True][1] > 80
    assert luck[False][0] / luck[False][1] < 0.08
    assert luck[False][1] > 150


@pytest.mark.long
def test_a_recipe_gives_the_same_bits_again(tmp_path: Path) -> None:
    weights = []
    for hash_seed in ("1", "2"):  # two processes that order sets of strings differently
        out = tmp_path / hash_seed
        command = [sys.executable, str(MAKER), "shortcut", "--out", str(out), "--steps-scale", "0.005"]  # 20 of 4,000 steps
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert '"steps": 20' in done.stdout
        weights.append((out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
