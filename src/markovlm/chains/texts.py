"""From an example to the chunks of a chain and what is to be predicted after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markovlm.config.chain import ChainConfig
from markovlm.errors import UserError
from markovlm.tasks.base import Example, Task
from markovlm.tasks.chain import ChainExample, Query


@dataclass(frozen=True, slots=True)
class ChainText:
    """What a chain runs over. `chunks` o_1 … o_T; a state is written after each of the first `states` of them."""

    example: Example
    chunks: tuple[str, ...]
    states: int  # T, or T - 1 where only next chunks are predicted: nobody reads a state after the last
    queries: tuple[Query, ...] = ()
    start: str = ""  # s_1

    @property
    def id(self) -> str:
        return self.example.id

    def asked(self, t: int) -> tuple[Query, ...]:
        """Questions that are put to the state written after chunk `t`."""
        return tuple(query for query in self.queries if query.after == t)


def chain_text(example: Example, chain: ChainConfig, task: Task, tokenizer: Any) -> ChainText:
    """The chunks of an example. Raises UserError if it can't be a chain of this kind."""
    if chain.kind == "thinking":
        assert chain.steps is not None
        if isinstance(example, ChainExample):
            raise UserError(f"chain.kind=thinking: {example.id} is a text in chunks; use kind=notes_then_questions")
        asked = Query(example.question, example.answer, after=chain.steps)
        return ChainText(example, (example.question,) * chain.steps, chain.steps, (asked,))
    if isinstance(example, ChainExample):
        chunks, queries, start = example.chunks, example.queries, example.start
    else:
        chunks, queries, start = _cut(example, chain, task, tokenizer), (), ""
    kept = chunks[: chain.steps]
    queries = tuple(query for query in queries if query.after <= len(kept))
    if chain.predicts != "answer" and len(kept) < 2:
        raise UserError(f"{example.id}: has {len(kept)} chunk, but chain.reward={chain.predicts} predicts the next one")
    if chain.predicts != "next_chunk" and not queries:
        asked = f"none within chain.steps={chain.steps}" if isinstance(example, ChainExample) and example.queries else "none"
        raise UserError(
            f"{example.id}: chain.reward={chain.predicts} needs questions, but there are {asked}; "
            "a task brings them as markovlm.ChainExample (docs/chains.md)"
        )
    states = len(kept) - 1 if chain.predicts == "next_chunk" and not queries else len(kept)
    return ChainText(example, kept, states, queries, start)


def _cut(example: Example, chain: ChainConfig, task: Task, tokenizer: Any) -> tuple[str, ...]:
    """A whole text (a continuation with its context) in pieces of `chunk_tokens` tokens; a short rest at its end is left out."""
    if chain.chunk_tokens is None:
        raise UserError(f"chain.chunk_tokens is needed: task {task.name} provides whole texts, not chunks")
    text = f"{example.question} {example.answer}" if task.prompt_kind == "continuation" else example.question
    return cut_by_tokens(text, chain.chunk_tokens, tokenizer)


def cut_by_tokens(text: str, size: int, tokenizer: Any, *, keep_rest: bool = False) -> tuple[str, ...]:
    """Pieces of `size` tokens; a shorter rest at the end is left out unless `keep_rest` (or it is all there is)."""
    if not getattr(tokenizer, "is_fast", False):
        raise UserError("chain.chunk_tokens: cutting by tokens needs a fast tokenizer (one with tokenizer.json)")
    spans: Sequence[tuple[int, int]] = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    pieces = [spans[at : at + size] for at in range(0, len(spans), size)]
    short = len(pieces) > 1 and len(pieces[-1]) < size
    end = pieces.pop()[0][0] if short and not keep_rest else len(text)
    starts = [piece[0][0] for piece in pieces]
    return tuple(piece for a, b in zip(starts, [*starts[1:], end], strict=False) if (piece := text[a:b].strip()))
