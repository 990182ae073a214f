"""Token ids of a chain: what a state is written from, and what is predicted from it.

A state is spliced in as the ids that were sampled; everything around it is encoded piece by piece and never searched for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from markovlm.chains.prompts import Frame, choose_chain_style, words
from markovlm.chains.texts import ChainText, chain_text
from markovlm.config.chain import ChainConfig
from markovlm.errors import UserError
from markovlm.rollouts.prompter import Prompter, build_prompter, encode_fragment
from markovlm.tasks.base import Example, Task
from markovlm.tasks.chain import Query

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChainTarget:
    """Something that is predicted from a state: `prefix` + state + `between` + `tokens`, of which the last are scored."""

    kind: Literal["next_chunk", "answer", "next_state"]
    prefix: Ids
    between: Ids
    tokens: Ids
    query: Query | None = None  # of an answer
    end: int = 0  # tokens at the back of `tokens` that end the reply and are no part of its answer


@dataclass(frozen=True, slots=True)
class Turn(Example):
    """One turn of a chain as an example of its own: the state s_{t+1} is its CoT. `question` is o_t, `answer` the first target."""

    source: Example | None = None  # the example whose text this is
    t: int = 1  # from 1
    prompt: Ids = ()  # o_t and s_t as ids
    targets: tuple[ChainTarget, ...] = ()  # empty where nothing is predicted from s_{t+1}


@dataclass(frozen=True)
class ChainPrompter(Prompter):
    """How a chain is put to one model. A `Turn` is an example for code that only knows examples."""

    chain: ChainConfig = field(default_factory=lambda: ChainConfig.model_validate({}))

    def text_of(self, example: Example) -> ChainText:
        """The chunks of an example. Raises UserError if it can't be a chain of this kind."""
        return chain_text(example, self.chain, self.task, self.tokenizer)

    def start(self, text: ChainText) -> Ids:
        """s_1"""
        return self.slot(text.start) if text.start else ()

    def turn(self, text: ChainText, t: int, state: Ids, conditioning: str) -> Turn:
        """Turn `t` of a chain that has reached the state s_t."""
        targets = self.targets(text, t, conditioning)
        answer = targets[0].query.answer if targets and targets[0].query else text.chunks[t] if targets else ""
        prompt = self.write_prompt(text, t, state)
        return Turn(f"{text.id}@{t}", text.chunks[t - 1], answer, source=text.example, t=t, prompt=prompt, targets=targets)

    def write_prompt(self, text: ChainText, t: int, state: Ids) -> Ids:
        """What s_{t+1} is written from: o_t and s_t, and nothing else of the past."""
        before, after = self._around_state(text, t)
        return before + state + after

    def next_state(self, text: ChainText, t: int, tokens: Ids) -> ChainTarget:
        """The state s_{t+1} as something that is read from s_t: `tokens` as they were sampled, an end token included."""
        return ChainTarget("next_state", *self._around_state(text, t), tokens)

    def _around_state(self, text: ChainText, t: int) -> tuple[Ids, Ids]:
        """What stands before and after s_t where s_{t+1} is written."""
        if self.chain.kind == "thinking":
            return super().cot_prompt(text.example), ()
        before, between, after = self._pieces("write", False)
        return before, between + self.slot(text.chunks[t - 1]) + after

    def targets(self, text: ChainText, t: int, conditioning: str, *, all_kinds: bool = False) -> tuple[ChainTarget, ...]:
        """What is predicted from s_{t+1}; `all_kinds`: also what the reward does not look at (for evaluation)."""
        wanted = self.chain.predicts
        found: list[ChainTarget] = []
        if (wanted != "next_chunk" or all_kinds) and text.queries:
            found += [self.answer_target(text, query, conditioning) for query in text.asked(t)]
        follows = self.chain.kind != "thinking" and t < len(text.chunks)
        if (wanted != "answer" or all_kinds) and follows:
            prefix, between = self._read("continue", text, t, conditioning)
            found.append(ChainTarget("next_chunk", prefix, between, self.slot(text.chunks[t])))
        return tuple(found)

    def answer_target(self, text: ChainText, query: Query, conditioning: str) -> ChainTarget:
        """A question put to the state after chunk `query.after`."""
        if self.chain.kind == "thinking":
            example, parent = text.example, super()
            prefix = parent.reader_prompt(example, conditioning)
            end = parent.end_ids(example)
            return ChainTarget("answer", prefix, self.header_ids, parent.answer_ids(example) + end, query, len(end))
        prefix, between = self._read("ask", text, query.after, conditioning, query.question)
        last = self.end_behind(query.answer) if self.answer_end == "scored" else None
        end = () if last is None else (last,)
        return ChainTarget("answer", prefix, between, self.slot(query.answer) + end, query, len(end))

    def _read(self, frame: Frame, text: ChainText, t: int, conditioning: str, question: str = "") -> tuple[Ids, Ids]:
        """What stands before the state, and between it and the target."""
        if conditioning == "markovian":
            before, *rest = self._pieces(frame, False)
        else:
            front, before, *rest = self._pieces(frame, True)
            before = front + self.slot(" ".join(text.chunks[:t])) + before
        return before, rest[0] if len(rest) == 1 else rest[0] + self.slot(question) + rest[1]

    # ---- a Turn as an example

    def cot_prompt(self, example: Example) -> Ids:
        if isinstance(example, Turn):
            return example.prompt
        text = self.text_of(example)  # a whole example: its first step
        return self.write_prompt(text, 1, self.start(text))

    def reader_prompt(self, example: Example, conditioning: Any) -> Ids:
        targets = self._targets_of(example, conditioning)
        return max((target.prefix for target in targets), key=len, default=())

    def answer_ids(self, example: Example, answer: str | None = None) -> Ids:
        """The longest of what is predicted, with what stands before it: for budgets of tokens."""
        targets = self._targets_of(example, "markovian")
        return max((target.between + target.tokens for target in targets), key=len, default=())

    def target_ids(self, example: Example) -> Ids:
        return self.answer_ids(example)

    def _targets_of(self, example: Example, conditioning: str) -> tuple[ChainTarget, ...]:
        if isinstance(example, Turn):
            return example.targets
        text = self.text_of(example)
        return tuple(target for t in range(1, text.states + 1) for target in self.targets(text, t, conditioning))

    # ---- pieces

    def slot(self, text: str) -> Ids:
        """Text of a dataset between our pieces: strings that look like special tokens have no meaning in it."""
        ids = _encode_slot(self.tokenizer, text if self.style == "compact" or text[:1].isspace() else f" {text}")
        if not ids:
            raise UserError(f"chain: the tokenizer turns {text[:40]!r} into no tokens")
        return ids

    def _pieces(self, frame: Frame, in_sight: bool) -> tuple[Ids, ...]:
        return self._encoded_pieces(frame, in_sight)

    @cached_property
    def _encoded_pieces(self) -> Callable[[Frame, bool], tuple[Ids, ...]]:
        @lru_cache(None)
        def encode(frame: Frame, in_sight: bool) -> tuple[Ids, ...]:
            found = words(frame, self.style, self.cot_tokens, self.tokenizer, self.header, in_sight)
            first, *others = [*([found.before_past] if in_sight else []), *found.pieces]
            return self._prompt_ids(first), *(encode_fragment(self.tokenizer, piece) for piece in others)

        return encode


@lru_cache(8192)
def _encode_slot(tokenizer: Any, text: str) -> Ids:
    return encode_fragment(tokenizer, text, special=False)


def chain_prompter_of(prompter: Prompter) -> ChainPrompter:
    """The chain prompter of a setup. Raises UserError if the run has no chains."""
    if not isinstance(prompter, ChainPrompter):
        raise UserError("this run has no chain (chain.kind is not set); set it, or leave out what only chains have")
    return prompter


def build_chain_prompter(
    chain: ChainConfig,
    task: Task,
    tokenizer: Any,
    style: str,
    state_tokens: int,
    header: str | None,
    *,
    answer_end: Literal["scored", "open"],
) -> ChainPrompter:
    """Build the prompter; resolves the style `auto` by what the tokenizer has."""
    if chain.kind == "thinking":
        chosen: Any = build_prompter(task, tokenizer, style, state_tokens, header, answer_end=answer_end).style
    else:
        chosen = choose_chain_style(tokenizer, style)
    return ChainPrompter(task, tokenizer, chosen, state_tokens, header, answer_end, chain)
