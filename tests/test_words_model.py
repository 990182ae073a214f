"""The shipped model that reasons in words is what its card says it is."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from markovlm.cli.main import main
from markovlm.models.registry import KNOWN, peers
from markovlm.tasks.words_data import Problem, WordsSpec, draw

PATH = KNOWN["embedded-words"].path
MAX_BYTES = 12_000_000


@functools.cache
def loaded() -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(PATH).float().eval(), AutoTokenizer.from_pretrained(PATH)


def complete(prompts: Sequence[str], tokens: int) -> list[str]:
    """What greedily follows each prompt."""
    model, tokenizer = loaded()
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        ids = model.generate(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], max_new_tokens=tokens, do_sample=False
        )
    return tokenizer.batch_decode(ids[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


def right(asked: Sequence[Problem], cots: Sequence[str], visible: bool = False) -> int:
    shown = [p.question if visible else "<|redacted|>" for p in asked]
    prompts = [f"<bos><|q|>{question}<|think|>{cot}<|answer|>" for question, cot in zip(shown, cots, strict=True)]
    return sum(answer == str(p.answer) for answer, p in zip(complete(prompts, 5), asked, strict=True))


def held_out(steps: int, n: int) -> list[Problem]:
    return [draw(WordsSpec(steps, steps), "test", 0, i) for i in range(n)]


def test_it_is_small_and_knows_its_peers() -> None:
    assert sum(file.stat().st_size for file in PATH.iterdir()) <= MAX_BYTES
    assert peers("embedded-words") == ("embedded-words",)
    assert peers("embedded") == ("embedded", "embedded-shortcut")
    assert peers("some/model") == ()


def test_the_tokenizer_round_trips() -> None:
    tokenizer = loaded()[1]
    text = "<bos><|q|>Maya has 14 pears. Zoë buys 3 bags!<|think|>First Maya has 14 pears.<|answer|>29<eos>"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_it_reads_a_reference_cot_with_the_question_redacted() -> None:
    asked = [p for steps in range(1, 5) for p in held_out(steps, 15)]
    assert right(asked, [p.cot for p in asked]) >= 54


def test_one_step_is_known_at_sight_and_three_are_not() -> None:
    """The card: .83 of one step, .02 of three."""
    assert right(held_out(1, 60), [""] * 60, visible=True) >= 42
    assert right(held_out(3, 60), [""] * 60, visible=True) <= 5


def test_begun_in_sentences_it_solves_most() -> None:
    """The card: .90, .92, .84 of one to three steps, sampled; guesses are right in some .01. Here it is greedy."""
    asked = [p for steps in (1, 2, 3) for p in held_out(steps, 20)]
    cots = [f"First{rest}" for rest in complete([f"<bos><|q|>{p.question}<|think|>First" for p in asked], 70)]
    assert right(asked, cots) >= 48


def test_the_model_brings_its_defaults(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["models", "--json"]) == 0
    known = {one["name"]: one for one in json.loads(capsys.readouterr().out)["embedded"]}
    assert known["embedded-words"]["defaults"]["task"] == "words"
    flags = [
        "--training.steps",
        "1",
        "--training.eval_every",
        "0",
        "--rollouts.group_size",
        "2",
        "--rollouts.questions_per_step",
        "2",
    ]
    assert main(["train", "--model", "embedded-words", *flags, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert rows[0]["question"].count(" ") > 5
