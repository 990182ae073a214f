"""The words around states, chunks and questions (the kinds notes and notes_then_questions).

    compact   <bos><|notes|>STATE<|text|>CHUNK<|update|>NEW STATE
              <bos><|notes|>STATE<|text|>NEXT CHUNK            <bos><|notes|>STATE<|question|>QUESTION<|answer|>ANSWER
    plain     Notes: STATE / Text: CHUNK / New notes: NEW STATE    and so on; chat: the same in the user's turn

Each prompt is a frame of pieces with slots between them; pieces and slots are encoded apart (`markovlm.chains.prompter`), so that the
tokens of a state are the sampled ones. With the past visible (`non_markovian`, and a control of evaluation), all chunks read so far come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from markovlm.errors import UserError
from markovlm.tasks.prompts import chat_prompt, special_strings

BOS, NOTES, TEXT, UPDATE, QUESTION, ANSWER, PAST = (
    "<bos>", "<|notes|>", "<|text|>", "<|update|>", "<|question|>", "<|answer|>", "<|past|>",
)  # fmt: skip
Frame = Literal["write", "continue", "ask"]
_MARK = "\u2063{}\u2063"  # stands for a slot while a chat template is rendered; an invisible separator, in no template
_TASK = "Read a text in pieces and keep notes of at most {n} tokens: nothing else is kept."
_PLAIN: dict[Frame, tuple[str, ...]] = {
    "write": (_TASK + "\nNotes:", "\nText:", "\nNew notes:"),
    "continue": ("Notes:", "\nText:"),
    "ask": ("Notes:", "\nQuestion:", "\nAnswer:"),
}
_COMPACT: dict[Frame, tuple[str, ...]] = {
    "write": (NOTES, TEXT, UPDATE),
    "continue": (NOTES, TEXT),
    "ask": (NOTES, QUESTION, ANSWER),
}


@dataclass(frozen=True, slots=True)
class ChainWords:
    """The pieces of a frame. Slot 0 is the state, slot 1 (where there are three pieces) the chunk or the question."""

    before_past: str  # only with the past visible: what stands in front of it
    pieces: tuple[str, ...]


def is_chain_compact(tokenizer: Any) -> bool:
    """Whether the tokenizer has the tokens of the compact prompts of chains."""
    return {NOTES, UPDATE, PAST} <= special_strings(tokenizer)


def choose_chain_style(tokenizer: Any, wanted: str) -> str:
    """`wanted`, or what the tokenizer is made for. Raises UserError for a style that it does not support."""
    compact = is_chain_compact(tokenizer)
    if wanted == "compact" and not compact:
        raise UserError(f"prompt.style: compact prompts of chains need the tokens {NOTES}, {UPDATE}, {PAST}; use plain or chat")
    if wanted == "chat" and not getattr(tokenizer, "chat_template", None):
        raise UserError("prompt.style: chat needs a tokenizer with a chat template, which this one lacks; use plain")
    if wanted != "auto":
        return wanted
    return "compact" if compact else "chat" if getattr(tokenizer, "chat_template", None) else "plain"


def words(frame: Frame, style: str, tokens: int, tokenizer: Any, header: str | None = None, in_sight: bool = False) -> ChainWords:
    """The pieces of a frame; `header` replaces what precedes an answer."""
    pieces = list((_COMPACT if style == "compact" else _PLAIN)[frame])
    if style == "compact":
        if header is not None and frame == "ask":
            pieces[-1] = header
        return ChainWords(BOS + PAST, tuple(pieces)) if in_sight else ChainWords("", (BOS + pieces[0], *pieces[1:]))
    pieces[0] = pieces[0].replace("{n}", str(tokens))
    if style == "plain":
        if header is not None and frame == "ask":
            pieces[-1] = header
        return ChainWords("Text so far:", ("\n" + pieces[0], *pieces[1:])) if in_sight else ChainWords("", tuple(pieces))
    return _chat(frame, pieces, tokenizer, header, in_sight)


def _chat(frame: Frame, pieces: list[str], tokenizer: Any, header: str | None, in_sight: bool) -> ChainWords:
    """What the model writes stands in the assistant's turn, behind its label; everything before it in the user's."""
    label = pieces.pop()
    if frame == "continue":
        label = "\nText:"
    slots = [_MARK.format(i) for i in range(len(pieces))]
    body = "".join(piece + slot for piece, slot in zip(pieces, slots, strict=True))
    past = _MARK.format("past")
    user = f"Text so far:{past}\n{body}" if in_sight else body
    rest = chat_prompt(tokenizer, user) + (header if header is not None and frame == "ask" else label.lstrip("\n"))
    front = ""
    if in_sight:
        front, _, rest = rest.partition(past)
    found: list[str] = []
    for slot in slots:
        piece, _, rest = rest.partition(slot)
        found.append(piece)
    return ChainWords(front, (*found, rest))
