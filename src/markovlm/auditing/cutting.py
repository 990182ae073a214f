"""Where the reasoning of a completion ends and its final answer begins. Pure: text in, two texts out.

What is audited is the reasoning. Models close it in many ways, and a group that ends `#### 42` must not be compared with one that ends
`So there are **42** apples.` only because one of them was cut:

    <think>…</think>, [THINK]…[/THINK], gpt-oss channels      the reasoning is inside, all behind it is the answer
    #### 42   ANSWER: B   A: 10   **Final answer:** 42        a last line with a label
    Final Answer:\\n42   ### Answer\\n…                         a label, and the answer below it
    <answer>10</answer>   [[B]]   {"answer": 10}              a last element
    \\[ \\boxed{42} \\]   So the answer is $\\boxed{42}$.          a last sentence or formula with a box
    So the answer is 42.   … has **44 stickers** remaining.   a last sentence with a label, or with its result in bold

Politeness and end tokens after an answer (`I hope it is correct.`) are cut off with it. Consecutive statements at the end are one
answer; an earlier one belongs to the reasoning.
"""

from __future__ import annotations

import re

from markovlm.analysis.segments import sentences
from markovlm.tasks.numbers import written_numbers

_MOST_STATEMENTS = 4  # at the end of one completion
_LONGEST_ANSWER = 200  # characters below a label

_TAGS = "think|thinking|reasoning|thought|thoughts|scratchpad|seed:think"
_THINK = re.compile(rf"<({_TAGS})>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(rf"</(?:{_TAGS})>", re.IGNORECASE)
_OTHER_THINK = re.compile(
    r"(?:\[THINK\]|<\|START_THINKING\|>|◁think▷)(.*?)(?:\[/THINK\]|<\|END_THINKING\|>|◁/think▷|\Z)", re.DOTALL
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", re.DOTALL)
_CHANNELS_DECODED = re.compile(r"\A\s*analysis(.*?)assistant\s*(?:<\|channel\|>)?final(.*)\Z", re.DOTALL)

_LABEL = (
    r"(?:the\s+|my\s+|so\s+|thus\s+|therefore\W*\s*|hence\s+)*(?:final\s+|correct\s+|right\s+|best\s+)?(?:answer|option|choice)"
)
_LINE = re.compile(rf"^\W*(?:{_LABEL}\W*\s*(?:is\b|[:=])|Ans(?:\.|wer)?\s*[:=]|A:(?=\s*\S[^\n]{{0,60}}$))", re.IGNORECASE)
_HEADING = re.compile(rf"^[ \t]*[#*_>\s]*{_LABEL}[*_\s]*(?:\bis\b)?[:=]?[*_\s]*$", re.IGNORECASE)
_SENTENCE = re.compile(rf"\b{_LABEL}\b[^.!?\n]{{0,40}}?(?:\bis\b|[:=])", re.IGNORECASE)
_GOES_ON = re.compile(r"[.!?][\"')*]*\s+\S")
_HASHES = re.compile(r"\n?\s*####[ \t]*\S[^\n]*\s*\Z")
_ELEMENT = re.compile(r"<(answer|ans|final_answer|final)>(?:(?!<\1>).)*(?:</\1>\s*|\Z)\Z", re.DOTALL | re.IGNORECASE)
_JSON = re.compile(r"(?:```(?:json)?\s*)?\{[^{}]*\"(?:final_?)?answer\"\s*:[^{}]*\}\s*(?:```)?\s*\Z", re.IGNORECASE)
_DOUBLE_BRACKETS = re.compile(r"\[\[\s*[A-Ja-j\d.,-]{1,20}\s*\]\][.\s]*\Z")
_BOLD = re.compile(r"\*\*(?!\s)([^*\n]{1,80}?)(?<!\s)\*\*")
_NO_RESULT = re.compile(r"\s*(?:step|part|case|question|problem)\s*\d+\W*\s*", re.IGNORECASE)
_OPENS_DISPLAY = re.compile(r"(?:\\\[|\$\$|\\begin\{(?:align\*?|equation\*?|aligned|gather\*?)\}|\\\(|\$)[\s\\!]*\Z")
_CLOSES_DISPLAY = re.compile(r"[\s\\!]*(?:\\\]|\$\$|\\end\{\w+\*?\}|\\\)|\$)?[\s.*_]*")
_BEHIND = re.compile(
    r"(?:(?<=[\s.!?*$\]})>])|\A)(?:I hope (?:it|this|that) is correct|I hope (?:this|that) helps|Hope (?:this|that) helps"
    r"|(?:Please )?let me know if [^.!?\n]*|Is there anything else [^.!?\n]*|Would you like [^.!?\n]*|Feel free to [^.!?\n]*"
    r"|Q\.?E\.?D)[.!?\s😊🎉🙂]*\Z"
    r"|(?:<\|[a-z_]{2,24}\|>|</s>|<eos>|<end_of_turn>|∎|◻|```)\s*\Z",
    re.IGNORECASE,
)


def before_answer(completion: str) -> tuple[str, str | None]:
    """The reasoning of a completion, and the final answer that was cut off after it; None if nothing was.

    >>> before_answer("9*2=18.\\n#### 18")
    ('9*2=18.', '#### 18')
    """
    apart = _marked_reasoning(completion)
    if apart is not None:
        return apart
    text = _without_politeness(completion)
    cut = len(text)
    for _ in range(_MOST_STATEMENTS):
        start = _last_statement(text[:cut])
        if start is None:
            break
        cut = len(_without_politeness(text[:start]))
    if cut == len(text):
        return completion.strip(), None
    return text[:cut].strip(), completion[cut:].strip()


def _marked_reasoning(completion: str) -> tuple[str, str | None] | None:
    """Where the completion itself says which part is reasoning."""
    channels = [(match[1].lower(), match[2].strip()) for match in _CHANNEL.finditer(completion)]
    if channels:
        thought = "\n".join(text for name, text in channels if name != "final" and text)
        final = "\n".join(text for name, text in channels if name == "final" and text)
        return (thought, final or None) if thought else before_answer(final)
    if (decoded := _CHANNELS_DECODED.match(completion)) is not None:
        return decoded[1].strip(), decoded[2].strip() or None
    blocks = list(_THINK.finditer(completion)) or list(_OTHER_THINK.finditer(completion))
    if blocks:
        inside = [match[match.re.groups].strip() for match in blocks]
        behind = completion[blocks[-1].end() :].strip()
        return "\n".join(text for text in inside if text), behind or None
    if (closing := _THOUGHT.search(completion)) is not None:  # the opening one was in the prompt
        return completion[: closing.start()].strip(), completion[closing.end() :].strip() or None
    return None


def _without_politeness(text: str) -> str:
    text = text.rstrip()
    for _ in range(_MOST_STATEMENTS):
        shorter = _BEHIND.sub("", text).rstrip()
        if shorter == text:
            break
        text = shorter
    return text


def _last_statement(text: str) -> int | None:
    """Where the statement of the answer begins that ends `text`; None if it ends in none, or is nothing else."""
    for pattern in (_ELEMENT, _HASHES, _JSON):
        if (match := pattern.search(text)) is not None:
            return match.start()
    head, newline, line = text.rpartition("\n")
    if _LINE.match(line) and not _GOES_ON.search(line):
        return len(head)
    if (heading := _heading_above(text)) is not None:
        return heading
    if (box := _boxed_statement(text)) is not None:
        return box
    pieces = sentences(line)
    if len(pieces) > 1 or (newline and pieces):
        last = pieces[-1]
        if _SENTENCE.search(last) or _DOUBLE_BRACKETS.search(last) or _bold_result(last):
            return _with_its_announcement(text, len(text) - len(last))
    return None


def _heading_above(text: str) -> int | None:
    """`Final Answer:` on a line of its own and a short answer on the next lines."""
    lines = text.split("\n")
    below = 0
    for number in range(len(lines) - 1, max(-1, len(lines) - 5), -1):
        if _HEADING.match(lines[number]) and below and re.search(r"\b(?:answer|option|choice)\b", lines[number], re.IGNORECASE):
            return len("\n".join(lines[:number]))
        below += len(lines[number])
        if below > _LONGEST_ANSWER:
            return None
    return None


def _boxed_statement(text: str) -> int | None:
    """The formula or sentence with the last box, if nothing but its end is behind that."""
    at = text.rfind("\\boxed{")
    if at < 0:
        return None
    end = closing_brace(text, at + len("\\boxed{"))
    if end is None or len(_CLOSES_DISPLAY.sub("", text[end + 1 :], count=1)) > 40 or "\n\n" in text[end + 1 :].strip():
        return None
    opened = _OPENS_DISPLAY.search(text[:at])
    start = opened.start() if opened is not None else at
    line = text.rfind("\n", 0, start) + 1
    before = text[line:start]
    if before.strip():  # it ends a sentence
        pieces = sentences(before)
        start = start - len(pieces[-1]) if pieces and not before.rstrip().endswith((".", "!", "?")) else start
        if start == 0:
            return None  # the whole completion is one sentence
        return start
    return _with_its_announcement(text, line)


def _with_its_announcement(text: str, start: int) -> int:
    """A line above that ends in a colon announces the answer: `So the total is:`. Where only that would be left, nothing is cut off it."""
    above = text[:start].rstrip()
    if not above.endswith(":"):
        return start
    line = above.rfind("\n") + 1
    pieces = sentences(above[line:])
    begin = len(above) - len(pieces[-1]) if pieces else line
    return begin if text[:begin].strip() else start


def _bold_result(sentence: str) -> bool:
    """Does a sentence give a number or a letter in bold?"""
    for match in _BOLD.finditer(sentence):
        inside = match[1].strip()
        if _NO_RESULT.fullmatch(inside):
            continue
        if re.fullmatch(r"\(?[A-J]\)?[.:]?(?:\s.*)?", inside) or written_numbers(inside):
            return True
    return False


def closing_brace(text: str, start: int) -> int | None:
    """Index of the brace that closes the one opened before `start`; None if it is not closed."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return None


def gold_of(target: str) -> str:
    """The final answer of a target that may be a whole solution: what follows GSM8K's `####`, or in its last `\\boxed{…}`."""
    if "####" in target:
        return target.rpartition("####")[2].strip()
    at = target.rfind("\\boxed{")
    end = closing_brace(target, at + len("\\boxed{")) if at >= 0 else None
    inside = target[at + len("\\boxed{") : end].strip() if end is not None else ""
    return inside or target.strip()
