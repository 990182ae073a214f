"""Where a reply ends: which token, by style; that it is scored as the last of the gold answer; what is seen of it in rows and evaluations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.rollouts.prompter import build_prompter
from markovlm.rollouts.reader import answer_batch, greedy_prefix, greedy_reads, score_answers
from markovlm.rollouts.reply_end import reply_end
from markovlm.rollouts.types import CoT
from markovlm.runs.setup import prepare
from markovlm.tasks import get_task
from markovlm.tasks.base import Example
from markovlm.training.metrics import sample_rows
from markovlm.training.records import Retries, Sample, StepResult
from markovlm.training.scoring import score_rewards
from markovlm.training.step import take_step
from support import naive, tiny
from support.fake import FakeSampler

TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
TEMPLATES = {  # as the models' own, shortened: what closes the assistant's turn
    "ChatML (SmolLM2, Qwen)": (TURNS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}", "<|im_end|>"),
    "Llama 3": (
        "{% for m in messages %}{{ '<|start|>' + m.role + '<|stop|>\n\n' + m.content + '<|eot_id|>' }}{% endfor %}",
        "<|eot_id|>",
    ),
    "Gemma": (
        "{% for m in messages %}{{ '<start_of_turn>' + m.role + '\n' + m.content + '<end_of_turn>\n' }}{% endfor %}",
        "<end_of_turn>",
    ),
    "Mistral": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        "<eos>",
    ),
    "no mark at all": ("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", "<eos>"),
    "a template that fails on replies": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}",
        "<eos>",
    ),
}
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|start|>", "<|stop|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>")


def chat_tokenizer(template: str) -> Any:
    made = tiny.char_tokenizer()
    made.add_tokens([AddedToken(text, special=True) for text in SPECIAL])
    made.chat_template = template
    return made


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_model_ends_as_its_template_closes_a_turn(name: str) -> None:
    template, closing = TEMPLATES[name]
    tokenizer = chat_tokenizer(template)
    end = reply_end(tokenizer, "chat")
    assert tokenizer.convert_ids_to_tokens(end) == closing


def test_a_plain_model_ends_with_a_line_break_and_a_compact_one_with_its_end_token() -> None:
    tokenizer = tiny.char_tokenizer()
    assert tokenizer.decode([reply_end(tokenizer, "plain")]) == "\n"
    embedded = build_prompter(get_task("arithmetic"), _embedded_tokenizer(), "auto", 8, None, answer_end="scored")
    assert (embedded.style, embedded.end_name) == ("compact", "<eos>")
    assert embedded.target_ids(tiny.QUESTIONS[0]) == (*embedded.answer_ids(tiny.QUESTIONS[0]), embedded.tokenizer.eos_token_id)


def _embedded_tokenizer() -> Any:
    from markovlm.config.model import Loading
    from markovlm.models.load import load_tokenizer

    return load_tokenizer("embedded", Loading(device="cpu"))


def test_plain_ends_with_the_end_token_where_a_line_break_is_no_token_or_part_of_the_answer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.save_nano(tmp_path))  # drops every character but 0, 1 and 2
    assert reply_end(tokenizer, "plain") == tokenizer.eos_token_id == 3
    prompter = build_prompter(get_task("custom"), tiny.char_tokenizer(), "plain", 8, None, answer_end="scored")
    one, two = Example("a", "q", "42"), Example("b", "q", "4\n2")
    assert prompter.tokenizer.decode(prompter.end_ids(one)) == "\n"
    assert prompter.end_ids(two) == (tiny.EOS,)
    assert prompter.answer_stop == ("\n",)
    assert prompter.is_end(tiny.char_tokenizer().encode("\n", add_special_tokens=False)[0])


def test_what_has_no_end_of_its_own_stays_open() -> None:
    prompter = build_prompter(get_task("wiki"), tiny.char_tokenizer(), "plain", 8, None, answer_end="scored")
    text = Example("w", "Once upon", " a time")
    assert prompter.target_ids(text) == prompter.answer_ids(text)
    assert (prompter.end_after(text), prompter.end_name) == (None, "open")
    opened = build_prompter(get_task("gsm8k"), tiny.char_tokenizer(), "plain", 8, None, answer_end="open")
    assert opened.target_ids(tiny.QUESTIONS[0]) == opened.answer_ids(tiny.QUESTIONS[0])
    assert (opened.end_name, opened.answer_stop) == ("open", ())


def test_an_end_of_turn_that_the_generation_config_does_not_name_ends_a_reply(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """Where it is scored it must also be where decoding stops."""
    import shutil

    model = tmp_path / "chat"
    shutil.copytree(tiny_models["llama"], model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content + '<unk>' }}{% endfor %}", encoding="utf-8")
    scored = prepare(tiny.config(model, prompt__style="chat"))
    opened = prepare(tiny.config(model, prompt__style="chat", objective__answer_end="open"))
    assert scored.prompter.end == 3 == scored.lm.terminators[-1]
    assert 3 not in opened.lm.terminators


# ---------------------------------------------------------------------------------------------------------- what is scored


@pytest.mark.parametrize("style", ["plain", "compact"])
def test_the_score_is_that_of_the_answer_and_its_end(tiny_models: dict[str, Path], nano_model: Path, style: str) -> None:
    setup = prepare(tiny.config(tiny_models["gpt2"]))
    lm, prompter, cot = setup.lm, setup.prompter, (9, 10)
    for end in ("scored", "open"):
        own = replace(prompter, answer_end=end)
        question = tiny.QUESTIONS[0]
        with torch.no_grad():
            scores = score_answers(lm, answer_batch(own, "markovian", [(question, cot)] * 2))
            tokens = (*own.answer_ids(question), *([prompter.end] if end == "scored" else []))
            before = (*own.reader_prompt(question, "markovian"), *cot, *own.header_ids)
            logp = naive.row_logits(lm, before, tokens).log_softmax(-1)
        each = logp[range(len(tokens)), list(tokens)]
        assert scores.logp_sum[0].item() == pytest.approx(each.sum().item(), abs=1e-9)
        assert scores.logp_mean[0].item() == pytest.approx(each.mean().item(), abs=1e-9)
        best = logp.argmax(-1).tolist()
        gold = own.answer_ids(question)
        assert scores.best.tolist() == best * 2
        assert scores.greedy[0].item() == (best[: len(gold)] == list(gold))
        assert scores.follows.tolist() == ([best[-1]] * 2 if end == "scored" else [-1, -1])


@pytest.mark.parametrize("end", ["scored", "open"])
def test_a_row_says_how_many_replies_end_and_how_many_run_on(tiny_models: dict[str, Path], end: str) -> None:
    """Gold answers made to be what the model says, so that many are likeliest; what follows is asked of the full logits."""
    learner = tiny.learner(tiny.config(tiny_models["gpt2"], objective__answer_end=end, rollouts__group_size=8))
    tiny.shake(learner.lm, scale=0.5)
    lm, prompter = learner.lm, learner.prompter
    cots = [tuple(20 + (5 * i + j) % 70 for j in range(3)) for i in range(24)]
    samples = []
    for i, cot in enumerate(cots):
        header = (*prompter.reader_prompt(tiny.QUESTIONS[0], "markovian"), *cot, *prompter.header_ids)
        with torch.no_grad():
            space = prompter.tokenizer.encode(" ", add_special_tokens=False)[0]
            likely = naive.row_logits(lm, (*header, space), [0])[0].argmax().item()
        text = prompter.tokenizer.decode([likely])
        example = Example(f"q{i}", "1+1", text if text.strip() and likely > 3 else "7")
        samples.append(Sample(example, 0, CoT(cot, 3, (0.0,) * 3, ended=True)))
    score_rewards(learner, samples, False, Retries(learner.sampler))
    for sample in samples:
        gold = prompter.answer_ids(sample.example)
        before = (*prompter.reader_prompt(sample.example, "markovian"), *sample.cot.ids, *prompter.header_ids)
        with torch.no_grad():
            best = naive.row_logits(lm, before, (*gold, 0)).argmax(-1).tolist()
        assert sample.correct == (best[:-1] == list(gold))
        assert sample.exact == (sample.correct and (best[-1] in lm.terminators or prompter.tokenizer.decode([best[-1]]) == "\n"))
    reads = greedy_reads(learner.sampler, prompter, "markovian", [(s.example, s.cot.ids) for s in samples], 6)
    for sample, read in zip(samples, reads, strict=True):
        known = sample.answered or ()
        assert read.ids[: len(known)] == known  # what scoring the gold answer shows of the greedy one is that
        if sample.answered_whole and end == "scored":  # open, a line break does not end what is decoded
            assert read.ended
            assert read.ids == known
    rows = sample_rows(StepResult(samples, 0.0, {}, 0, [], {}), prompter.text, 1)
    assert all(
        row["answered"] == prompter.text(s.answered) + "…" * (not s.answered_whole) for row, s in zip(rows, samples, strict=True)
    )


@pytest.mark.parametrize(
    ("end", "instead", "answered"),
    [
        ("scored", {}, " 23"),
        ("open", {}, " 23…"),  # what follows was not asked
        ("scored", {-1: "4"}, " 234…"),
        ("open", {-1: "4"}, " 24…"),
        ("scored", {-2: "4", -1: "5"}, " 24…"),  # what is likeliest behind a token that was not said, says nothing
        ("scored", {-2: None}, " 2"),
        ("scored", {-2: "\n"}, " 2"),
        ("scored", {0: "\n"}, "\n…"),  # a line break before any text ends no reply
        ("scored", {0: None}, ""),
    ],
)
def test_what_was_answered_is_known_up_to_the_first_token_that_is_not_gold(
    tiny_models: dict[str, Path], end: str, instead: dict[int, str | None], answered: str
) -> None:
    """`instead`: the likeliest token at a place of the scored answer, where it is not that of the gold answer; None: an end token."""
    setup = prepare(tiny.config(tiny_models["llama"]))
    lm, prompter = setup.lm, replace(setup.prompter, answer_end=end)
    question = replace(tiny.QUESTIONS[0], answer="23")
    best = list(prompter.target_ids(question))
    assert len(best) == 3 + (end == "scored")
    for place, text in instead.items():
        best[place] = lm.terminators[0] if text is None else prompter.tokenizer.encode(text, add_special_tokens=False)[-1]
    ids, whole = greedy_prefix(lm, prompter, question, best)
    assert prompter.text(ids) + "…" * (not whole) == answered


def test_rows_and_evaluations_have_the_shares(tiny_models: dict[str, Path]) -> None:
    from markovlm.training.answer_metrics import answer_columns

    config = tiny.config(tiny_models["llama"])
    made = [
        Sample(tiny.QUESTIONS[0], i, CoT((5,), 1, (0.0,), ended=True), correct=correct, exact=exact, answer_probability=0.5)
        for i, (correct, exact) in enumerate([(True, True), (True, False), (False, False), (True, None)])
    ]
    row = answer_columns(config, made)
    assert row["answer_correct_fraction"] == 0.75
    assert row["answer_exact_fraction"] == pytest.approx(1 / 3)
    assert row["answer_run_on_fraction"] == pytest.approx(1 / 3)
    assert row["reader_calibration"] == pytest.approx(0.5 - 0.5)  # of 4: exact where it is known (1, 0, 0), else correct (1)
    nothing = answer_columns(config, made[3:])
    assert nothing["answer_exact_fraction"] is nothing["answer_run_on_fraction"] is None


@pytest.mark.parametrize(
    ("reply", "likeliest", "exact"),
    [
        (" 23", True, None),
        (" 23\n", True, True),
        (" 23=23", True, False),
        (" 24", False, False),
        (" 2", False, False),
        ("\n 23\n", False, False),
    ],
)
def test_an_evaluation_tells_a_reply_that_ends_from_one_that_runs_on(
    tiny_models: dict[str, Path], reply: str, likeliest: bool, exact: bool | None
) -> None:
    setup = prepare(tiny.config(tiny_models["llama"]))
    ids = setup.lm.tokenizer.encode(reply, add_special_tokens=False)
    sampler = FakeSampler(lambda prompt, number: ids)
    how = replace(how_evaluated(setup.config, setup.prompter, step=1), cot_tokens=0)
    done = evaluate(setup.lm, sampler, setup.prompter, tiny.QUESTIONS[:1], how)
    (reading,) = done.readings
    assert (reading.likeliest, reading.exact) == (likeliest, exact)
    summary = done.summary()
    if exact is not None:
        assert summary["answer_correct_fraction"] == likeliest
        assert summary["answer_exact_fraction"] == exact
        assert summary["answer_run_on_fraction"] == likeliest - exact
    else:
        assert summary["answer_run_on_fraction"] is None


def test_decoding_stops_at_the_line_break_only_where_the_end_is_scored(tiny_models: dict[str, Path]) -> None:
    scored = prepare(tiny.config(tiny_models["llama"]))
    assert how_evaluated(scored.config, scored.prompter, step=1).answer_end == "\n"
    opened = prepare(tiny.config(tiny_models["llama"], objective__answer_end="open"))
    assert how_evaluated(opened.config, opened.prompter, step=1).answer_end == "open"
    for setup, kept in ((scored, (True,)), (opened, (True, False))):
        how = replace(how_evaluated(setup.config, setup.prompter, step=1), cot_tokens=0)
        setup.lm.terminators = ()
        found = evaluate(setup.lm, setup.sampler(), setup.prompter, tiny.QUESTIONS, how).readings
        assert {"\n" not in reading.answer.strip() for reading in found} <= set(kept)


def test_the_gradient_of_the_end_reaches_the_reader(tiny_models: dict[str, Path]) -> None:
    """The step's gradient differs from that of the open reward: the end is in the live term, not only in the number."""
    flat = []
    for end in ("scored", "open"):
        learner = tiny.learner(tiny.config(tiny_models["gpt2"], objective__answer_end=end, objective__reward="logprob"))
        learner.sampler = FakeSampler(lambda prompt, number: (9, 10 + number))
        take_step(learner, tiny.QUESTIONS[:2], 1)
        flat.append(learner.optimizer.flat())  # pyright: ignore[reportAttributeAccessIssue]
    assert (flat[0] - flat[1]).norm() > 0.01 * flat[1].norm()
