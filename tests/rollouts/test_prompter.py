"""How a configuration becomes prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from markovlm.auditing.readers import budget_named
from markovlm.evaluation.evaluate import how_evaluated
from markovlm.runs.setup import prepare
from markovlm.runs.targets import Target
from markovlm.tasks.prompts import UNSAID
from support import tiny


@pytest.mark.parametrize("mentioned", [True, False])
def test_the_budget_is_in_the_prompts_or_not(mentioned: bool, tiny_models: dict[str, Path]) -> None:
    keys = {"prompt__style": "plain", "prompt__mention_budget": mentioned, "rollouts__max_cot_tokens": 7}
    setup = prepare(tiny.config(tiny_models["llama"], task="gsm8k", **keys))
    question = tiny.QUESTIONS[0]
    for prompt in (setup.prompter.cot_prompt(question), setup.prompter.reader_prompt(question, "markovian")):
        assert ("which you have 7 tokens to work" in setup.lm.tokenizer.decode(prompt)) == mentioned
        assert ("which you have to work through" in setup.lm.tokenizer.decode(prompt)) != mentioned
    how = how_evaluated(setup.config, setup.prompter, step=0)
    assert (how.cot_tokens, how.prompt_style) == (7, "plain" if mentioned else "plain (no budget)")  # never compared unawares
    assert budget_named(Target("run", setup.config, None, None)) == (7 if mentioned else UNSAID)
