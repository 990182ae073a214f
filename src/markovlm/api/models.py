"""Load a model or a checkpoint of a run, sample CoTs from it, and read answers from CoTs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.api.arguments import listed, mapping, require_count, require_temperature, require_text
from markovlm.config import RunConfig, merge, nest
from markovlm.errors import UserError
from markovlm.tasks.base import Example


@dataclass(frozen=True, slots=True)
class Thought:
    """A CoT and the question it was written for."""

    example: Example
    text: str
    ids: tuple[int, ...] = ()  # as the reader sees them; empty for a text that was not sampled here
    logprob: float | None = None  # ln u(z|q) of all sampled tokens, an end token included; nats
    ended: bool = True  # by itself, not by the budget


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader answers from a CoT."""

    logprob: float | None  # ln pi(a|z) per answer token, nats; None where no gold answer was given
    answer: str | None  # as the task's default extractor reads it; None: no answer in the reply
    reply: str  # the raw greedy answer
    correct: bool | None  # None where no gold answer was given


@dataclass(frozen=True, slots=True)
class Model:
    """A policy with its task: the base model, or a checkpoint of a run. Made by `markovlm.load`."""

    config: RunConfig
    checkpoint: str  # "base", "step-000050", …
    setup: Any  # markovlm.runs.setup.Setup, for those who go deeper
    target: Any  # markovlm.runs.targets.Target

    def __repr__(self) -> str:
        lm = self.setup.lm
        return f"Model({self.config.model!r}, {self.checkpoint}, task {self.setup.task.name}, {lm.dtype} on {lm.device})".replace(
            "torch.", ""
        )

    def examples(self, split: str = "test", limit: int | None = None) -> list[Example]:
        """Questions of a split of the task. Raises UserError if the task has no such split."""
        if limit is not None:
            require_count("limit", limit)
        loaded = self.target.load(self.setup, split, limit)
        return [loaded.examples[i] for i in range(min(limit or len(loaded.examples), len(loaded.examples)))]

    def sample(
        self,
        questions: Sequence[str | Example],
        n: int = 1,
        *,
        seed: int = 0,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> list[list[Thought]]:
        """Sample `n` CoTs for each question, from random streams keyed by (seed, question, number): batching changes no draw.

        `temperature`: by default that at the end of training; 0 is greedy. Raises UserError for a question with characters that the
        model has no token for, and for invalid numbers.
        """
        from markovlm.rollouts.types import Decoding, SampleRequest

        require_count("n", n)
        if temperature is not None:
            require_temperature("temperature", temperature)
        if max_tokens is not None:
            require_count("max_tokens", max_tokens)
        asked = [self._example(question) for question in listed("questions", questions, (str, Example), "strings or Examples")]
        prompter, rollouts = self.setup.prompter, self.config.rollouts
        requests = [
            SampleRequest(prompter.cot_prompt(e), tuple((seed, "api", e.question, number) for number in range(n))) for e in asked
        ]
        budget = rollouts.max_cot_tokens if max_tokens is None else max_tokens
        assert budget is not None
        steps = self.config.training.steps
        tau = rollouts.temperature.at(steps, steps) if temperature is None else temperature
        drawn = self.setup.sampler().sample(requests, Decoding(budget, tau, rollouts.fixed_length, rollouts.stop))
        return [
            [Thought(e, prompter.text(cot.ids), cot.ids, sum(cot.behavior_logp), cot.ended) for cot in group]
            for e, group in zip(asked, drawn, strict=True)
        ]

    def read(
        self, thoughts: Sequence[Thought | str], answers: Sequence[str] | None = None, *, sighted: bool = False
    ) -> list[Reading]:
        """Read an answer from each CoT alone: the greedy answer, and ln pi(a|z) of the gold one in nats.

        Gold answers are those of the thoughts' examples, or `answers`. `sighted`: the reader sees the question too (then each thought
        must have one).
        """
        from markovlm.analysis.scoring import Variant, encode_cot, read_variants

        given = [
            self._thought(thought, sighted) for thought in listed("thoughts", thoughts, (str, Thought), "Thoughts or strings")
        ]
        gold = [t.example.answer for t in given] if answers is None else listed("answers", answers, str, "strings")
        if len(gold) != len(given):
            raise UserError(f"answers: {len(gold)} for {len(given)} CoTs; exactly one per CoT is needed")
        conditioning = "non_markovian" if sighted else "markovian"
        variants = []
        for number, (thought, answer) in enumerate(zip(given, gold, strict=True)):
            ids = thought.ids or encode_cot(self.setup.prompter, thought.text)
            target = answer or ("A" if self.setup.task.answer_type == "letter" else "0")  # scored only where it is known
            example = Example(thought.example.id, thought.example.question, target, thought.example.choices)
            variants.append(Variant(example, number, "read", ids, ids, conditioning))
        found = read_variants(self.setup, self.setup.sampler(), variants)
        return [
            Reading(one.logprob if answer else None, one.extracted, one.answer or "", one.correct if answer else None)
            for one, answer in zip(found, gold, strict=True)
        ]

    def ask(self, question: str | Example, choices: Sequence[str] = ()) -> Any:
        """One CoT and the answer read from it alone: `markovlm ask`. Raises UserError for a question that does not fit the task.

        `choices`: of a multiple-choice task, in order; or give an Example with choices, or a question that lists them as `A. …`, `B.
        …`. For an Example with a gold answer, `correct` and `logprob` are filled in.
        """
        from markovlm.evaluation.ask import ask

        if not isinstance(question, Example):
            require_text("question", question)
        return ask(self.setup, question, listed("choices", choices, str, "strings"))

    def ask_text(self, text: str, question: str | None = None) -> Any:
        """For a run with chains: the states written while `text` is read, and the answer from the last one (`markovlm ask --text`)."""
        from markovlm.evaluation.ask_chain import ask_chain

        require_text("text", text)
        if question is not None:
            require_text("question", question)
        return ask_chain(self.setup, text, question)

    def _example(self, question: str | Example) -> Example:
        from markovlm.tasks.choices import split_choices
        from markovlm.tasks.prompts import check_question

        if isinstance(question, Example):
            return question
        checked = check_question(self.setup.lm.tokenizer, question)
        text, choices = split_choices(checked) if self.setup.task.answer_type == "letter" else (checked, ())
        return Example("asked", text, "", choices)

    def _thought(self, thought: Thought | str, sighted: bool) -> Thought:
        if isinstance(thought, Thought):
            return thought
        if sighted:
            raise UserError("sighted: a CoT given as text has no question to see; give a Thought with its example")
        return Thought(Example("given", "0", answer=""), thought, ())


def load(target: str | Path, *, checkpoint: str | int = "last", config: Mapping[str, Any] | None = None, **keys: Any) -> Model:
    """Load a run's checkpoint, a directory of PEFT adapters, a bundled model, a local directory or a Hub id.

    `checkpoint`: last, best, base or a step. `config`: a nested configuration; `keys`: single ones with `__` for the dot
    (`rollouts__max_cot_tokens=48`). Raises UserError in one line for what does not exist.

        markovlm.load("embedded").ask("17+4+79").answer
    """
    from markovlm.runs.ahead import check_ahead
    from markovlm.runs.targets import open_targets

    picked = open_targets(str(target), str(checkpoint), settings(config, keys))[0]
    check_ahead(picked.config)
    setup = picked.prepare()
    return Model(setup.config, picked.checkpoint, setup, picked)


def settings(config: Mapping[str, Any] | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration from a mapping and from single keys such as `training__lr`."""
    return merge(mapping(config), nest({name.replace("__", "."): value for name, value in keys.items()}))
