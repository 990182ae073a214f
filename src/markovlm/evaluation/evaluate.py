"""Accuracy from the CoT alone: write a CoT from the question, hide the question, read the answer from the CoT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from markovlm.config import RunConfig
from markovlm.evaluation.answering import score_text
from markovlm.models.language import LanguageModel
from markovlm.models.memory import chunks, map_splitting
from markovlm.rollouts.drafts import read_with_drafts
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.prompter import Prompter
from markovlm.rollouts.reader import (
    answer_batch,
    answer_decoding,
    choice_batch,
    ends_reply,
    greedy_reads,
    logprob_of_greedy,
    score_answers,
)
from markovlm.rollouts.types import CoT, Decoding, Sampler, SampleRequest
from markovlm.statistics import wilson
from markovlm.tasks.answers import FAILURE_KINDS
from markovlm.tasks.base import LETTERS, LIKELIHOOD, Example

EVALUATION_TEMPERATURE = 1.0  # of sampled CoTs where evaluation.temperature is not given, whatever training used
BATCHES_WRITTEN = 8  # whose CoTs are written together before the first is read: what an evaluation that breaks off may lose


@dataclass(frozen=True, slots=True)
class How:
    """How an evaluation is done: part of its result. Rows with different settings are not comparable."""

    decoding: str  # "sampled" or "greedy" CoTs
    temperature: float  # of sampled CoTs; 0 for greedy
    cot_tokens: int
    fixed_length: bool
    stop: tuple[str, ...]
    reader: str  # "actor" or "frozen"
    conditioning: str
    prompt_style: str  # `chat (no budget)` where the prompts don't say how many tokens the CoT may have
    answer_header: str | None
    seed: int
    answer_end: str = "open"  # the token that ends a reply, scored as the last of the gold answer; open: none is


@dataclass(frozen=True, slots=True)
class AnswerReading:
    """One evaluated question."""

    id: str
    question: str
    gold: str
    cot: str
    cot_tokens: int
    ended: bool
    answer: str  # raw text of the greedy answer
    extracted: dict[str, str | None]  # extractor -> what it read; None: no answer
    correct: dict[str, bool]
    logprob: float  # ln pi(gold | CoT) per answer token
    choices: tuple[str, ...] = ()
    choice_logprobs: dict[str, float] = field(default_factory=dict[str, float])  # letter -> ln pi(letter | CoT)
    failure: str | None = None  # why the default extractor's answer is wrong; None: it is right, or there is none to extract
    likeliest: bool | None = None  # the greedy answer begins with all gold tokens; None: none was written
    exact: bool | None = None  # and then ends; None: not known either where the budget or the text has no room for an end
    answer_ended: bool | None = (
        None  # False: the token budget cut the answer; None: none was written, or an older version read it
    )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The rows of an evaluation with their summary."""

    readings: list[AnswerReading]
    how: How
    extractors: tuple[str, ...]  # the default first

    @property
    def n(self) -> int:
        return len(self.readings)

    def right(self, method: str | None = None) -> int:
        return sum(reading.correct[method or self.extractors[0]] for reading in self.readings)

    def summary(self) -> dict[str, Any]:
        """JSON values: n, accuracy and 95 % Wilson interval under every extractor, no-answer rate, log-likelihood, failures."""
        table: dict[str, dict[str, Any]] = {}
        for method in self.extractors:
            none = sum(reading.extracted[method] is None for reading in self.readings)
            right = self.right(method)
            table[method] = {"accuracy": right / self.n, "ci95": list(wilson(right, self.n)), "no_answer": none / self.n}
        first = table[self.extractors[0]] if self.extractors else {"accuracy": None, "ci95": None}
        logprob = sum(reading.logprob for reading in self.readings) / self.n
        return {
            "n": self.n,
            "accuracy": first["accuracy"],  # of the default extractor; null where answers are texts
            "ci95": first["ci95"],
            "extractors": table,
            "logprob": logprob,
            **self.ends(),
            "failures": self.failures(),
            "how": asdict(self.how),
        }

    def ends(self) -> dict[str, float | None]:
        """Shares of the replies that begin with all gold tokens, that consist of them alone, and the difference: those that run on."""
        asked = [(bool(r.likeliest), r.exact) for r in self.readings if r.exact is not None]
        if not asked:
            return dict.fromkeys(ENDS)
        likeliest, exact = (sum(map(bool, column)) / len(asked) for column in zip(*asked, strict=True))
        return dict(zip(ENDS, (likeliest, exact, likeliest - exact), strict=True))

    def failures(self) -> dict[str, int]:
        """How many wrong answers (by the default extractor) are of each kind; empty if nothing is extracted."""
        if not self.extractors:
            return {}
        return {kind: sum(reading.failure == kind for reading in self.readings) for kind in FAILURE_KINDS}


ENDS = ("answer_correct_fraction", "answer_exact_fraction", "answer_run_on_fraction")  # as in metrics.jsonl

POOLED = "default"  # of several tasks together: each question read by the default extractor of its own


def pooled(parts: Sequence[Evaluation]) -> Evaluation:
    """Several tasks as one: every question counts once. Free texts, without extractors, count for the log-likelihood only."""
    extracted = all(part.extractors for part in parts)
    readings = [
        replace(
            one,
            extracted={POOLED: one.extracted[part.extractors[0]]} if extracted else {},
            correct={POOLED: one.correct[part.extractors[0]]} if extracted else {},
        )
        for part in parts
        for one in part.readings
    ]
    return Evaluation(readings, parts[0].how, (POOLED,) if extracted else ())


def how_evaluated(config: RunConfig, prompter: Prompter, *, step: int | None = None) -> How:
    """The evaluation settings of a resolved configuration. `step` matters if CoTs are sampled at the temperature of training; None: the
    temperature at its end, the same for all checkpoints, so that rows are comparable.
    """
    evaluation, rollouts = config.evaluation, config.rollouts
    temperature = evaluation.temperature or EVALUATION_TEMPERATURE
    if temperature == "training":
        last = config.training.steps
        temperature = rollouts.temperature.at(last if step is None else max(step, 1), last)
    assert rollouts.max_cot_tokens is not None
    return How(
        decoding=evaluation.decoding,
        temperature=0.0 if evaluation.decoding == "greedy" else temperature,
        cot_tokens=rollouts.max_cot_tokens,
        fixed_length=rollouts.fixed_length,
        stop=rollouts.stop,
        reader=_reader(config),
        conditioning=config.objective.conditioning,
        prompt_style=prompter.style if config.prompt.mention_budget else f"{prompter.style} (no budget)",
        answer_header=config.prompt.answer_header,
        seed=config.seed,
        answer_end=prompter.end_name,
    )


def _reader(config: RunConfig) -> str:
    """Who answers: as in training, but for the slow reader, which is a device of training: the actor it follows."""
    if config.evaluation.reader != "same":
        return config.evaluation.reader
    return "frozen" if config.objective.reader == "frozen" else "actor"


def evaluate(
    lm: LanguageModel,
    sampler: Sampler,
    prompter: Prompter,
    examples: Sequence[Example],
    how: How,
    *,
    batch_size: int = 128,
    on_batch: Callable[[list[AnswerReading]], None] | None = None,
    write_answers: bool = False,
) -> Evaluation:
    """Evaluate the policy that `lm` currently is. `on_batch` gets the rows of each batch as it is finished, in no fixed order.

    CoTs are drawn from streams keyed by (seed, question), the same for every checkpoint: common random numbers. A task without
    extractors is judged by log-likelihood alone; `write_answers` writes its answers all the same.
    """
    readings: dict[str, AnswerReading] = {}
    wanted = write_answers or bool(prompter.task.extractors)
    # side by side: prompts of similar length, then CoTs of similar length; little is wasted on padding
    order = sorted(examples, key=lambda example: len(prompter.cot_prompt(example)))
    try:
        for together in chunks(order, batch_size * BATCHES_WRITTEN):
            written = list(zip(together, _write_cots(sampler, prompter, together, how, batch_size), strict=True))
            written.sort(key=lambda pair: len(pair[1].ids))
            for batch in chunks(written, batch_size):
                done = map_splitting(lambda part: _read_batch(lm, sampler, prompter, part, how, wanted), batch)
                readings |= {reading.id: reading for reading in done}
                if on_batch is not None:
                    on_batch(done)
    finally:
        if isinstance(sampler, HFSampler):
            sampler.release()
    return Evaluation([readings[example.id] for example in examples], how, prompter.task.extractors)


@torch.no_grad()
def _read_batch(
    lm: LanguageModel, sampler: Sampler, prompter: Prompter, written: Sequence[tuple[Example, CoT]], how: How, write_answers: bool
) -> list[AnswerReading]:
    cots = [(example, cot.ids) for example, cot in written]
    replies: Sequence[CoT | None] = [None] * len(cots)
    choices = [dict[str, float]()] * len(cots)
    with lm.frozen() if how.reader == "frozen" else lm.merged():
        if write_answers:
            logprobs, replies = _logprobs_and_answers(lm, sampler, prompter, how.conditioning, cots)
        else:
            logprobs = _answer_logprobs(lm, prompter, how.conditioning, cots, [None] * len(cots))
        if LIKELIHOOD in prompter.task.extractors:
            choices = _choice_logprobs(lm, prompter, how.conditioning, cots)
    return [_reading(lm, prompter, example, cot, replies[i], logprobs[i], choices[i]) for i, (example, cot) in enumerate(written)]


def _write_cots(sampler: Sampler, prompter: Prompter, examples: Sequence[Example], how: How, rows: int) -> list[CoT]:
    """One of each, at most `rows` at a time where this process samples: the next begin in the places of those that have ended."""
    if how.cot_tokens == 0:  # the control that answers directly
        return [CoT((), 0, (), ended=True) for _ in examples]
    requests = [SampleRequest(prompter.cot_prompt(e), ((how.seed, "evaluation", e.id),)) for e in examples]
    decoding = Decoding(how.cot_tokens, how.temperature, how.fixed_length, how.stop)
    if isinstance(sampler, HFSampler):
        return [group[0] for group in sampler.sample(requests, decoding, rows)]
    return [group[0] for part in chunks(requests, rows) for group in sampler.sample(part, decoding)]


def _logprobs_and_answers(
    lm: LanguageModel, sampler: Sampler, prompter: Prompter, conditioning: str, cots: Sequence[tuple[Example, tuple[int, ...]]]
) -> tuple[list[float], list[CoT]]:
    """ln pi(a|z) per answer token of each, and what the policy answers itself; both in one pass where this process samples."""
    budget = prompter.task.max_answer_tokens
    if isinstance(sampler, HFSampler) and sampler.lm is lm:
        batch, decoding = answer_batch(prompter, conditioning, cots), answer_decoding(prompter, budget)
        drafted = read_with_drafts(lm, batch, decoding)
        if drafted is not None:
            return [one.logp_mean for one in drafted], [one.read for one in drafted]
    reads = greedy_reads(sampler, prompter, conditioning, cots, budget)
    known = [logprob_of_greedy(prompter.target_ids(e), read) for (e, _), read in zip(cots, reads, strict=True)]
    return _answer_logprobs(lm, prompter, conditioning, cots, known), reads


def _answer_logprobs(
    lm: LanguageModel,
    prompter: Prompter,
    conditioning: str,
    cots: Sequence[tuple[Example, tuple[int, ...]]],
    known: Sequence[float | None],
) -> list[float]:
    """ln pi(a|z) per answer token of each, those not known from the greedy answer scored in one pass."""
    todo = [cot for cot, value in zip(cots, known, strict=True) if value is None]
    fresh = iter(score_answers(lm, answer_batch(prompter, conditioning, todo)).logp_mean.tolist() if todo else ())
    return [next(fresh) if value is None else value for value in known]


def _choice_logprobs(
    lm: LanguageModel, prompter: Prompter, conditioning: str, cots: Sequence[tuple[Example, tuple[int, ...]]]
) -> list[dict[str, float]]:
    """ln pi(choice letter | z) of every letter of each example."""
    scores = iter(score_answers(lm, choice_batch(prompter, conditioning, cots)).logp_sum.tolist())
    return [{letter: next(scores) for letter in LETTERS[: len(example.choices)]} for example, _ in cots]


def _reading(
    lm: LanguageModel,
    prompter: Prompter,
    example: Example,
    cot: CoT,
    reply: CoT | None,
    logprob: float,
    choice_logprobs: dict[str, float],
) -> AnswerReading:
    text, answer = prompter.text(cot.ids), "" if reply is None else prompter.text(reply.ids)
    likeliest, exact = (None, None) if reply is None else _matches(lm, prompter, example, reply)
    scored = score_text(prompter.task, example, text, answer, choice_logprobs, ended=reply is None or reply.ended)
    return AnswerReading(
        id=example.id,
        question=example.question,
        gold=example.answer,
        cot=text,
        cot_tokens=len(cot.ids),
        ended=cot.ended,
        answer=answer,
        extracted=scored.extracted,
        correct=scored.correct,
        logprob=logprob,
        choices=example.choices,
        choice_logprobs=choice_logprobs,
        failure=scored.failure,
        likeliest=likeliest,
        exact=exact,
        answer_ended=None if reply is None else reply.ended,
    )


def _matches(lm: LanguageModel, prompter: Prompter, example: Example, reply: CoT) -> tuple[bool, bool | None]:
    """(The greedy reply begins with all gold tokens, and then ends); the latter None if it can't be known."""
    gold = prompter.answer_ids(example)
    likeliest = reply.tokens[: len(gold)] == gold
    if prompter.end_after(example) is None or (likeliest and len(reply.tokens) == len(gold)):
        return likeliest, None
    return likeliest, likeliest and ends_reply(lm, prompter, reply.tokens[len(gold)])
