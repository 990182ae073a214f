"""The embedded model is what its card says it is."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from markovlm.models.registry import KNOWN
from markovlm.tasks import get_task
from markovlm.tasks.arithmetic_data import parse_question, running_sums, split_of
from markovlm.tasks.base import LoadRequest

MAX_BYTES = 4 * 2**20
PATH = KNOWN["embedded"].path


def test_it_is_small_and_loads_with_plain_transformers() -> None:
    assert sum(file.stat().st_size for file in PATH.iterdir()) <= MAX_BYTES
    model = AutoModelForCausalLM.from_pretrained(PATH)
    assert 0.7e6 < sum(p.numel() for p in model.parameters()) < 0.9e6
    tokenizer = AutoTokenizer.from_pretrained(PATH)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<eos>", "<|answer|>")]
    assert model.generation_config.eos_token_id == ends


def test_the_tokenizer_round_trips_and_adds_nothing() -> None:
    tokenizer = AutoTokenizer.from_pretrained(PATH)
    text = "<bos><|q|>17+4-79<|think|>well, 17+4=21. ok<|answer|>100<eos>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(tokenizer("17+4")["input_ids"]) == 4


@torch.no_grad()
def test_it_reads_a_worked_cot_with_the_question_redacted() -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(PATH).float().eval(), AutoTokenizer.from_pretrained(PATH)
    examples = get_task("arithmetic").load(LoadRequest("test", limit=20)).examples
    right = 0
    for example in examples:
        prompt = f"<bos><|q|><|redacted|><|think|>{running_sums(parse_question(example.question))}<|answer|>"
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        out = model.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
        right += tokenizer.decode(out, skip_special_tokens=True) == example.answer
    assert right >= 19  # the card: 1.000 of 2,000


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_splits_never_share_a_question_whatever_the_seed(split: str) -> None:
    task = get_task("arithmetic")
    for seed in (0, 1, 12345):
        examples = task.load(LoadRequest(split, limit=300, seed=seed)).examples
        assert {split_of(parse_question(examples[i].question)) for i in range(len(examples))} == {split}
