"""Token ids of the parts of a sequence: question prompt, reader prompt, answer header, answer, and the end of the reply.

Each part is encoded alone; what is sampled in between is never re-encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

from markovlm.errors import UserError
from markovlm.rollouts.reply_end import LINE_BREAK, reply_end
from markovlm.tasks import prompts
from markovlm.tasks.base import Example, Task
from markovlm.tasks.mixture import task_of_example

_REMEMBERED = 4096  # encoded parts kept of each kind


@dataclass(frozen=True)
class Prompter:
    """How one task is put to one model. `cot_tokens` is the CoT budget that the prompt mentions (`prompts.UNSAID`: none)."""

    task: Task
    tokenizer: Any
    style: prompts.PromptStyle
    cot_tokens: int
    header: str | None = None  # override of the style's answer header
    answer_end: Literal["scored", "open"] = "open"  # is the end of the reply part of what is scored?

    def asks(self, example: Example) -> Task:
        """The task that a question belongs to: one of several if `task` is a mixture."""
        return task_of_example(self.task, example)

    def cot_prompt(self, example: Example) -> tuple[int, ...]:
        """What the CoT is written from."""
        return self._cot_prompts(example)

    def reader_prompt(self, example: Example, conditioning: prompts.Conditioning | str) -> tuple[int, ...]:
        """What precedes the CoT when the answer is predicted: the question is redacted if Markovian."""
        return self._reader_prompts(example, conditioning)

    def answer_ids(self, example: Example, answer: str | None = None) -> tuple[int, ...]:
        """Tokens of the gold answer (or of another one), as they follow the header."""
        return self._answers(example if answer is None else replace(example, answer=answer))

    def target_ids(self, example: Example) -> tuple[int, ...]:
        """What is scored: the gold answer's tokens, and the end of the reply if that is scored."""
        return self.answer_ids(example) + self.end_ids(example)

    def end_ids(self, example: Example) -> tuple[int, ...]:
        """The end of the reply as it is scored after this gold answer: one token, or none."""
        end = self.end_after(example) if self.answer_end == "scored" else None
        return () if end is None else (end,)

    def end_after(self, example: Example) -> int | None:
        """The token that should follow this gold answer, scored or not. None if it has no end of its own: a continued text."""
        return None if self.asks(example).prompt_kind == "continuation" else self.end_behind(example.answer)

    def end_behind(self, answer: str) -> int | None:
        """The token that ends the reply `answer`: a line break can't end one that contains line breaks."""
        return self.tokenizer.eos_token_id if self._line_break is not None and LINE_BREAK in answer else self.end

    def is_end(self, token: int) -> bool:
        """Whether a reply of this style would end with this token. (It also ends with the model's own end tokens.)"""
        return token == self.end or (self._line_break is not None and LINE_BREAK in self.tokenizer.decode([token]))

    @property
    def answer_stop(self) -> tuple[str, ...]:
        """Strings that end a greedy answer, besides the model's end tokens."""
        return (LINE_BREAK,) if self.answer_end == "scored" and self._line_break is not None else ()

    @property
    def end_name(self) -> str:
        """What ends a reply, as results record it: `open`, or the token."""
        if self.answer_end == "open" or self.end is None or self.task.prompt_kind == "continuation":
            return "open"
        return self.tokenizer.decode([self.end])

    @cached_property
    def end(self) -> int | None:
        """The token that ends a reply in this style."""
        return reply_end(self.tokenizer, self.style)

    @cached_property
    def _line_break(self) -> int | None:
        """`end`, where that is a line break."""
        return self.end if self.end is not None and self.tokenizer.decode([self.end]) == LINE_BREAK else None

    # A step asks for the same ids several times for each CoT of a group: every part is encoded once and remembered.

    @cached_property
    def _cot_prompts(self) -> Callable[[Example], tuple[int, ...]]:
        @lru_cache(_REMEMBERED)
        def encode(example: Example) -> tuple[int, ...]:
            return self._prompt_ids(
                prompts.cot_prompt(
                    self.asks(example), example, style=self.style, cot_tokens=self.cot_tokens, tokenizer=self.tokenizer
                )
            )

        return encode

    @cached_property
    def _reader_prompts(self) -> Callable[[Example, Any], tuple[int, ...]]:
        @lru_cache(_REMEMBERED)
        def encode(example: Example, conditioning: prompts.Conditioning) -> tuple[int, ...]:
            text = prompts.reader_prompt(
                self.asks(example),
                example,
                style=self.style,
                cot_tokens=self.cot_tokens,
                conditioning=conditioning,
                tokenizer=self.tokenizer,
            )
            return self._prompt_ids(text)

        return encode

    @cached_property
    def _answers(self) -> Callable[[Example], tuple[int, ...]]:
        @lru_cache(_REMEMBERED)
        def encode(example: Example) -> tuple[int, ...]:
            ids = encode_fragment(self.tokenizer, prompts.answer_text(example, style=self.style))
            if not ids:
                raise UserError(f"{example.id}: the answer {example.answer!r} has no tokens")
            return ids

        return encode

    @cached_property
    def header_ids(self) -> tuple[int, ...]:
        """Token ids between CoT and answer."""
        text = prompts.answer_header(self.style) if self.header is None else self.header
        return encode_fragment(self.tokenizer, text)

    def text(self, ids: tuple[int, ...]) -> str:
        """Decoded for people and for the extractors."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def _prompt_ids(self, text: str) -> tuple[int, ...]:
        if self.style == "plain":
            # special-token strings inside a question are plain text here, and only a leading BOS is added
            ids = self.tokenizer(text, split_special_tokens=True, add_special_tokens=True)["input_ids"]
            if ids and len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id and ids[-1] != self.tokenizer.bos_token_id:
                ids = ids[:-1]
        else:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise UserError("prompt: the tokenizer turns the prompt into no tokens")
        return tuple(ids)


def encode_fragment(tokenizer: Any, text: str, *, special: bool = True) -> tuple[int, ...]:
    """Ids of a piece in the middle of a text: no special tokens added, no space put in front (as SentencePiece does).

    `special`: strings that look like special tokens are those.
    """

    def encode(piece: str) -> list[int]:
        return tokenizer(piece, add_special_tokens=False, split_special_tokens=not special)["input_ids"]

    anchor, anchored = encode("\n"), encode("\n" + text)
    if anchor and anchored[: len(anchor)] == anchor and tokenizer.decode(anchored[len(anchor) :]) == text:
        return tuple(anchored[len(anchor) :])
    return tuple(encode(text))


def build_prompter(
    task: Task,
    tokenizer: Any,
    style: str,
    cot_tokens: int,
    header: str | None,
    questions: Sequence[Example] = (),
    *,
    answer_end: Literal["scored", "open"],
) -> Prompter:
    """Build the prompter; resolves the style `auto` by what the tokenizer has, and whether it can encode these questions."""
    chosen = prompts.choose_style(tokenizer, questions) if style == "auto" else style
    if chosen == "chat" and not getattr(tokenizer, "chat_template", None):
        raise UserError("prompt.style: chat needs a tokenizer with a chat template, which this one lacks; use plain")
    return Prompter(task, tokenizer, chosen, cot_tokens, header, answer_end)  # pyright: ignore[reportArgumentType]
