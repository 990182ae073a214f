"""Where a reply says what its answer is: `The answer is …`, `Answer: …`, `\\boxed{…}`, `#### …`, `<answer>…</answer>`. Pure: text in, places out.

Only the reply counts (`reply_of`): not the thought before it, and not the next question that a model goes on to ask itself.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

MAX_TAIL = 400  # characters behind a label that are looked at
MAX_STATEMENTS = 40  # of each kind, the last ones

# ------------------------------------------------------------------------------------------------------------- the reply

_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final\s*<\|message\|>", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"\s*<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_SPECIAL = re.compile(
    r"<\|(?:endoftext|im_end|im_start|eot_id|end_of_text|end|user|assistant|return|start_header_id|start)\|>|</s>|<eos>|<end_of_turn>"
    r"|<start_of_turn>|\[/?INST\]"
)
_NEXT_TURN = re.compile(
    r"(?:^|\n)[ \t>*#_]*(?:(?:next|new|another|second|follow-?up|practice|similar)[ \t]+)?"
    r"(?:question|problem|exercise|instruction|human|user|q)(?:[ \t]*#?[ \t]*\d{1,3})?[ \t*_]*[:.](?![ \t]*\d+\s*\Z)"
    r"|(?<=[.!?\d])[ \t]+(?:question|problem|q)[ \t]*\d{0,3}:[ \t]"
    r"|(?:^|\n|(?<=[.!?\d])[ \t]+)you will be given an?\b",
    re.IGNORECASE,
)
_RESTATES = re.compile(r":\s*\Z|\b(?:restat|rephras|repeat|rewrit)\w*[^.\n]{0,80}[.\n]?\s*\Z", re.IGNORECASE)


def reply_of(text: str) -> tuple[str, bool]:
    """The part of `text` that answers, and whether more follows it (then this part is whole, even if the text was cut).

    It begins behind the thought, where tags mark one (unless nothing follows), and ends where the model makes up the next turn or question.
    """
    for match in _FINAL_CHANNEL.finditer(text):
        text = text[match.end() :]
        break
    *_, behind = _THOUGHT_ENDS.split(text)
    if behind.strip():
        text = behind
    if match := _THOUGHT_BEGINS.match(text):
        text = text[match.end() :]
    end = len(text)
    for pattern in (_SPECIAL, _NEXT_TURN):
        for match in pattern.finditer(text, 0, end):
            before = text[: match.start()]
            if re.search(r"\w", before) and not (pattern is _NEXT_TURN and _RESTATES.search(before[-120:])):
                end = match.start()
                break
    return text[:end], end < len(text)


# -------------------------------------------------------------------------------------------------------- the statements

Kind = Literal["label", "box", "tag", "hash"]


@dataclass(frozen=True, slots=True)
class Statement:
    """`Statement(4, "label", "42 apples.", 14)` of `The answer is 42 apples.`: where it begins, what it says and where that begins."""

    start: int
    kind: Kind
    text: str
    at: int  # index of `text` in the reply

    @property
    def end(self) -> int:
        return self.at + len(self.text)


_ADJECTIVE = (
    r"(?:final|correct|right|best|closest|chosen|selected|appropriate|accurate|true|actual|likeliest|(?:most|more)\s+\w+|my|your)"
)
_NOUN = r"(?:answers?|ans\b\.?|antwort|réponse|respuesta|risposta|resposta|ответ)"
_VERB = (
    r"(?:is|was|are|will\s+be|would\s+(?:then\s+|therefore\s+|thus\s+)?be|should\s+(?:then\s+|therefore\s+)?be|must\s+be|has\s+to\s+be"
    r"|(?:seems|appears)\s+to\s+be|comes\s+to|equals|becomes|lautet|ist|est|es|è|é)\b"
)
_LABEL = re.compile(
    rf"(?<![\w-])(?:(?:{_ADJECTIVE}\s+){{0,3}}{_NOUN}|(?:{_ADJECTIVE}\s+){{1,3}}(?:options?|choices?|letter|response|solution|result))"
    r"[ \t*_`\"'’)\]]*(?:\([^()\n]{1,40}\)[ \t*_]*)?"
    r"(?:to\s+(?:the|this|your|that)\s+(?:\w+\s+){0,3}(?:question|problem|puzzle)[ \t*_]*)?"
    rf"(?:(?:,\s*(?:therefore|then|thus|however),\s*|\s*){_VERB}(?:\s*(?:therefore|thus|then|hence|simply|clearly|also|as\s+follows))*\s*[:=]?|\s*[:=：]|\s+-\s)",
    re.IGNORECASE,
)
_WITHOUT_SPACES = re.compile(r"(?:答案|回答|答え)\s*(?:应该是|應該是|应为|應為|是|为|為|は)?\s*[:：]?")
_HEADING = re.compile(rf"(?:^|\n)[^\w\n]*(?:the\s+)?(?:{_ADJECTIVE}\s+){{0,2}}{_NOUN}[^\w\n(]*(?=\n)", re.IGNORECASE)
_BARE_LABEL = re.compile(
    rf"(?<![\w-])(?:the\s+)?(?:{_ADJECTIVE}\s+){{0,2}}answer[ \t]+(?=[(\[*$\\]*(?:[-−]?\d|[A-J](?![\w'’])))", re.IGNORECASE
)
_TAG = re.compile(r"<(answer|ans|final_answer|final|result)>", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"</(?:answer|ans|final_answer|final|result)>", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASH = re.compile(r"(?:^|(?<=\s))####[ \t]*(?=\S)")
_EMPTY_LINE = re.compile(r"[^\w\n]*\n")  # signs alone: `$$`, `---`, `**`
_NOT_YET = re.compile(r"(?:\s|\.{2,}|…)+")
_HAS_CONTENT = re.compile(r"[^\W_]|[½¼¾⅓⅔]")


def statements(reply: str) -> list[Statement]:
    """What the reply states to be its answer, in order. What is said may be no answer at all; nested ones (`Answer: \\boxed{5}`) come last."""
    found: dict[int, Statement] = {}
    for pattern in (_BARE_LABEL, _HEADING, _LABEL, _WITHOUT_SPACES):
        for match in _last(pattern, reply):
            tail = _tail(reply, match.end())
            if tail is not None:
                found[tail[0]] = Statement(match.start(), "label", tail[1], tail[0])
    others = [*_boxes(reply), *_tags(reply), *_hashes(reply)]
    return sorted([*found.values(), *others], key=lambda one: (one.start, one.at))


def _last(pattern: re.Pattern[str], reply: str) -> Iterable[re.Match[str]]:
    """The last matches: a reply that states its answer a thousand times is read in no time."""
    return deque(pattern.finditer(reply), maxlen=MAX_STATEMENTS)


def _tail(reply: str, at: int) -> tuple[int, str] | None:
    """Where what is said begins, and its line. Signs without a word go with the line behind them; None at the end of the reply."""
    while True:
        line_end = reply.find("\n", at)
        stop = line_end if line_end >= 0 else len(reply)
        if _HAS_CONTENT.search(reply, at, stop):
            match = _NOT_YET.match(reply, at, stop)
            at = match.end() if match else at
            return at, reply[at : min(stop, at + MAX_TAIL)]
        if line_end < 0:
            return None
        at = line_end + 1


def _boxes(reply: str) -> Iterator[Statement]:
    for match in _last(_BOX, reply):
        depth, at = 1, match.end()
        limit = min(len(reply), at + MAX_TAIL)
        while at < limit and depth:
            depth += {"{": 1, "}": -1}.get(reply[at], 0)
            at += 1
        yield Statement(match.start(), "box", reply[match.end() : at - (depth == 0)], match.end())


def _tags(reply: str) -> Iterator[Statement]:
    for match in _last(_TAG, reply):
        close = _CLOSING_TAG.search(reply, match.end(), match.end() + MAX_TAIL)
        end = close.start() if close is not None else min(len(reply), match.end() + MAX_TAIL)
        yield Statement(match.start(), "tag", reply[match.end() : end], match.end())


def _hashes(reply: str) -> Iterator[Statement]:
    for match in _last(_HASH, reply):
        tail = _tail(reply, match.end())
        if tail is not None:
            yield Statement(match.start(), "hash", tail[1], tail[0])


# --------------------------------------------------------------------------------------------------------------- helpers

_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]*_]*(?=\s+[\"'“(*\[]*[A-Z]|\s*\n|\s*\Z)|\n")
_NO_ANSWER = re.compile(
    r"\b(?:unknown|undefined|undetermined|(?:can(?:not|'t|’t)|not\s+possible\s+to|impossible\s+to|unable\s+to)\s+(?:be\s+)?(?:determine|answer|find|say|calculate|compute|know)\w*"
    r"|not\s+(?:given|enough|specified|provided|clear|known|sure|listed|among|in\s+the\s+(?:options|choices))|insufficient|don['’]?t\s+know|do\s+not\s+know|no\s+(?:answer|idea|solution)|n/a)\b"
    r"|\A\W*none\b",
    re.IGNORECASE,
)


def first_sentence(text: str) -> str:
    """`text` up to the end of its first sentence or line."""
    match = _SENTENCE_END.search(text)
    return text[: match.end()] if match else text


def sentences_of(text: str) -> list[tuple[int, str]]:
    """Sentences with where they begin; the last may be unfinished."""
    found: list[tuple[int, str]] = []
    at = 0
    for match in _SENTENCE_END.finditer(text):
        if text[at : match.end()].strip():
            found.append((at, text[at : match.end()]))
        at = match.end()
    if text[at:].strip():
        found.append((at, text[at:]))
    return found


def declines(text: str) -> bool:
    """Does it say that there is no answer? `unknown`, `cannot be determined`, `I don't know`."""
    return _NO_ANSWER.search(text) is not None
