"""Reference numbers: as METHOD §4 and the seed's analysis print them."""

from __future__ import annotations

import pytest

from markovlm.tasks import task_names
from markovlm.tasks.reference import PAPER, REFERENCES, SEED, lookup


def value(task, model, setting, source=PAPER, extractor=""):
    found = [r.value for r in lookup(task, model) if (r.setting, r.source, r.extractor) == (setting, source, extractor)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b", "Llama-3.1-8B-Instruct/"])
def test_lookup(model):
    assert value("gsm8k", model, "markovian") == 0.571
    assert value("wiki", model, "non_markovian") == -2.900
    assert value("arc", model, "base") == 0.361


def test_other_sources():
    llama = "meta-llama/Llama-3.1-8B-Instruct"
    assert value("mmlu", "Qwen/Qwen3-4B", "markovian") == 0.605
    assert value("aqua", llama, "seed_markovian", SEED, "word_boundary") == 0.1142
    assert {r.n for r in lookup("svamp", llama) if r.source == SEED} == {30}
    assert lookup("gsm8k", "gpt2") == lookup("mathqa", llama) == ()


def test_every_number_is_about_a_task_and_in_range():
    for reference in REFERENCES:
        assert reference.task in task_names()
        assert reference.source
        assert reference.how
        assert reference.value < 0 if reference.metric == "logprob_per_token" else 0 <= reference.value <= 1
