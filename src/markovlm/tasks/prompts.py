"""What the model is asked: the CoT prompt, the reader's prompt, and how an answer is written.

Three styles. `plain` is text for base models and for parity with the paper. `chat` puts the same instruction into the user's turn of
the tokenizer's own template and opens the assistant's turn at `Reasoning:`. `compact` is for the bundled models: a few special tokens
around a sum.

Text of a dataset is data. In plain and chat prompts a string in it that this tokenizer would read as a special token, and the
placeholder `<Redacted>` itself, lose their meaning: `neutralize` puts a space after their first character (`< |eot_id|>`). So a
question cannot end its own turn, and cannot pass for a redacted one. A chat template's own special tokens are part of the prompt: a
chat or compact prompt must be encoded with special tokens parsed and without adding a BOS, a plain one with the BOS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Literal, cast

from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS, Example, Task

PromptStyle = Literal["compact", "plain", "chat"]
Conditioning = Literal["markovian", "non_markovian", "choices"]

REDACTED = "<Redacted>"
BOS, QUESTION, THINK, REDACTED_TOKEN, ANSWER = "<bos>", "<|q|>", "<|think|>", "<|redacted|>", "<|answer|>"

# Templates that write today's date would make prompts differ from one day to the next. They get this one: by the name
# `date_string`, or from a macro that takes the place of transformers' `strftime_now` (which may not be passed in).
TEMPLATE_DATE = date(2024, 7, 26)  # the date that Llama-3.1's template falls back on
_DATE_FIELDS = ("%-d", "%Y", "%y", "%m", "%d", "%b", "%B", "%a", "%A", "%H", "%M", "%S")
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{name}', '{TEMPLATE_DATE.strftime(name)}')" for name in _DATE_FIELDS)
    + " }}{%- endmacro %}"
)

_BRACKETED = re.compile(r"<\S+>|\[[A-Z_]+\]")  # what control tokens look like: <think>, [INST]

_STEP_BY_STEP = "You will be given {a} problem, which you have {n} tokens to work through step-by-step. Question:"
_CHOOSE = "You will be given a multiple choice {kind}. Use {n} tokens to think {how}, then select the correct {what}. Question:"
_CONTINUE = "Compress your understanding of this text into {n} tokens, then predict the next {m} tokens.\n\nText:"

UNSAID = -1  # as `cot_tokens`: the prompt mentions no number of tokens, which a reader without a CoT would take for the answer
_WITHOUT_NUMBERS = (
    ("which you have {n} tokens to work", "which you have to work"),
    ("Use {n} tokens to think", "Think"),
    ("into {n} tokens, then predict the next {m} tokens", "into a few words, then predict what follows"),
)

_INSTRUCTIONS: dict[str, str] = {
    "arithmetic": _STEP_BY_STEP.replace("{a}", "an arithmetic"),
    "reasoning": _STEP_BY_STEP.replace("{a}", "a reasoning"),
    "multiple_choice": _CHOOSE.format(kind="question", n="{n}", how="through the problem step-by-step", what="answer"),
    "continuation": _CONTINUE,
}
# The research code words these tasks differently (aqua, arc; mathqa came later and follows aqua).
_TASK_INSTRUCTIONS: dict[str, str] = {
    "aqua": _CHOOSE.format(kind="algebra word problem", n="{n}", how="step-by-step", what="option"),
    "mathqa": _CHOOSE.format(kind="math word problem", n="{n}", how="step-by-step", what="option"),
    "arc": _CHOOSE.format(kind="science question", n="{n}", how="step-by-step", what="letter"),
    "arc_easy": _CHOOSE.format(kind="science question", n="{n}", how="step-by-step", what="letter"),
}


def choose_style(tokenizer: Any, questions: Sequence[Example] = ()) -> PromptStyle:
    """The style a tokenizer is made for: compact, where it has the embedded model's tokens (and a token for every part of these
    questions), chat or plain."""
    if is_compact(tokenizer) and not any(example.choices or loses(tokenizer, example.question) for example in questions):
        return "compact"
    return "chat" if getattr(tokenizer, "chat_template", None) else "plain"


def is_compact(tokenizer: Any) -> bool:
    """Whether the tokenizer has the tokens of a compact prompt."""
    return {THINK, REDACTED_TOKEN} <= special_strings(tokenizer)


def unknown_in(tokenizer: Any, text: str) -> list[str]:
    """The words of `text` that a tokenizer has no token for (it has an unknown token, or none at all), each once."""
    if not loses(tokenizer, text):
        return []
    found = [word for word in dict.fromkeys(text.split()) if _lost(tokenizer, word)]
    return found or [text]


def check_question(tokenizer: Any, question: str) -> str:
    """A question that a user typed, as it is asked. Raises UserError if it is empty or has words without a token."""
    return check_example(tokenizer, Example("asked", question.strip(), "")).question


def check_example(tokenizer: Any, example: Example) -> Example:
    """The example itself. Raises UserError if its question is empty or it has words that the tokenizer has no token for."""
    if not example.question:
        raise UserError("the question is empty")
    unknown = unknown_in(tokenizer, " ".join((example.question, *example.choices)))
    if unknown:
        raise UserError(f"the question has words this model does not know: {' '.join(unknown[:8])}")
    return example


def loses(tokenizer: Any, text: str) -> bool:
    """Whether `text` contains anything that a tokenizer has no token for."""
    return _lost(tokenizer, text) or any(_lost(tokenizer, c) and not c.isspace() for c in set(text) if not c.isalnum())


def _lost(tokenizer: Any, piece: str) -> bool:
    unknown, ids = getattr(tokenizer, "unk_token_id", None), tokenizer(piece, add_special_tokens=False)["input_ids"]
    return bool(piece.strip()) and (not ids or (unknown is not None and unknown in ids))


def cot_prompt(
    task: Task,
    example: Example,
    *,
    style: PromptStyle,
    cot_tokens: int,
    tokenizer: Any = None,
    target_tokens: int | None = None,
) -> str:
    """The prompt after which the chain of thought is written.

    `cot_tokens` is the budget that the prompt mentions (`UNSAID`: none), `target_tokens` (default: the task's answer budget) the length
    of the continuation. Raises UserError for a style that the task or the tokenizer does not have.
    """
    if style == "compact":
        return f"{BOS}{QUESTION}{_compact_question(task, example, tokenizer)}{THINK}"
    return _prompt(task, _shown(example, tokenizer), style, cot_tokens, tokenizer, target_tokens)


def reader_prompt(
    task: Task,
    example: Example,
    *,
    style: PromptStyle,
    cot_tokens: int,
    conditioning: Conditioning,
    tokenizer: Any = None,
    target_tokens: int | None = None,
) -> str:
    """The prompt after which the reader sees the chain of thought, the answer header and then the answer.

    `markovian`: the question and its choices are replaced by `<Redacted>`, so the prompt is the same for every example
    of a task. `choices`: the question alone is replaced, its choices stay. `non_markovian`: the question stays, and the prompt is the
    CoT prompt.
    """
    if conditioning == "non_markovian":
        return cot_prompt(task, example, style=style, cot_tokens=cot_tokens, tokenizer=tokenizer, target_tokens=target_tokens)
    if style == "compact":
        _compact_question(task, example, tokenizer)
        return f"{BOS}{QUESTION}{REDACTED_TOKEN}{THINK}"
    shown = REDACTED + _choices(example, tokenizer) if conditioning == "choices" else REDACTED
    return _prompt(task, shown, style, cot_tokens, tokenizer, target_tokens)


def answer_header(style: PromptStyle) -> str:
    """The text between the chain of thought and the answer."""
    return ANSWER if style == "compact" else " Answer:"


def answer_text(example: Example, *, style: PromptStyle) -> str:
    """The gold answer as the model should write it after the header: ` 42`, but `42` in compact style.

    A text that already begins with white space (a continuation) is left as it is.
    """
    return example.answer if style == "compact" or example.answer[:1].isspace() else f" {example.answer}"


def question_text(example: Example) -> str:
    """The question with its choices, one per line as `A. text`."""
    return example.question + _listed(example)


def _listed(example: Example) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, example.choices, strict=False)]
    return "\n".join(["\n\nChoices:", *lines]) if lines else ""


def special_strings(tokenizer: Any) -> frozenset[str]:
    """The strings that a tokenizer reads as special tokens wherever they stand in a text."""
    return frozenset() if tokenizer is None else _special_strings(tokenizer, len(tokenizer))


def neutralize(text: str, tokenizer: Any) -> str:
    """`text` with a space put into each string that would be a special token, or the placeholder, in a prompt."""
    pattern = _special_pattern(special_strings(tokenizer))
    while pattern.search(text):  # until nothing is left: a space can only break strings, but they may overlap
        text = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    return text


@lru_cache(maxsize=8)
def _special_strings(tokenizer: Any, size: int) -> frozenset[str]:
    """Reading the added tokens of a large tokenizer takes a millisecond, and every prompt asks; `size` tells of new ones."""
    found: set[str] = set(cast(Sequence[str], getattr(tokenizer, "all_special_tokens", ())))
    # Llama-3's `<|eot_id|>` is special in the vocabulary without having a role, Qwen's `<think>` is an added token.
    for token in getattr(tokenizer, "added_tokens_decoder", {}).values():
        if token.special or _BRACKETED.fullmatch(token.content):
            found.add(token.content)
    return frozenset(string for string in found if string == string.strip() and len(string) > 1)


@lru_cache(maxsize=8)
def _special_pattern(strings: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(strings | {REDACTED}, key=len, reverse=True))))


def _shown(example: Example, tokenizer: Any) -> str:
    return neutralize(question_text(example), tokenizer)


def _choices(example: Example, tokenizer: Any) -> str:
    return neutralize(_listed(example), tokenizer)


def _prompt(task: Task, shown: str, style: PromptStyle, cot_tokens: int, tokenizer: Any, target_tokens: int | None) -> str:
    instruction = _TASK_INSTRUCTIONS.get(task.name, _INSTRUCTIONS[task.prompt_kind])
    if cot_tokens == UNSAID:
        for numbered, plain in _WITHOUT_NUMBERS:
            instruction = instruction.replace(numbered, plain)
    instruction = instruction.format(n=cot_tokens, m=target_tokens or task.max_answer_tokens)
    opening = "Reasoning Bottleneck:" if task.prompt_kind == "continuation" else "Reasoning:"
    if style == "plain":
        return f"{instruction} {shown}\n{opening}"
    return chat_prompt(tokenizer, f"{instruction} {shown}") + opening


def chat_prompt(tokenizer: Any, user: str) -> str:
    """The rendered template up to where the assistant's words begin.

    No system message is sent: what a template writes by itself stays, the same in every prompt. Thinking modes are off; a template that
    writes an empty think block keeps it, before the reasoning that we ask for, and one that always opens a think block gets it closed.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("prompt style chat: this tokenizer has no chat template; use --prompt.style plain")
    rendered = _rendered(tokenizer, [{"role": "user", "content": user}], opened=True)
    if user.strip() not in rendered:
        raise UserError("prompt style chat: the tokenizer's template drops or changes the question; use --prompt.style plain")
    return f"{rendered.rstrip()}\n\n</think>\n\n" if rendered.rstrip().endswith("<think>") else rendered


def chat_reply(tokenizer: Any, user: str, reply: str) -> str:
    """A whole exchange as the tokenizer's template writes it, the assistant's turn closed. UserError as `chat_prompt`."""
    return _rendered(tokenizer, [{"role": "user", "content": user}, {"role": "assistant", "content": reply}], opened=False)


def _rendered(tokenizer: Any, messages: list[dict[str, str]], *, opened: bool) -> str:
    """`opened`: up to where the assistant's words begin."""
    try:
        template = tokenizer.get_chat_template()
        return tokenizer.apply_chat_template(
            messages,
            chat_template=_FIXED_DATE + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=opened,
            enable_thinking=False,
            thinking=False,
            date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
        )
    except Exception as error:  # a template is a program of the model's author: jinja2 and its own errors
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"prompt style chat: the tokenizer's template fails ({reason}); use --prompt.style plain") from error


def _compact_question(task: Task, example: Example, tokenizer: Any) -> str:
    """The question of a compact prompt. Raises UserError if the model has no tokens for it, or it would act as a prompt itself."""
    if example.choices:
        raise UserError(f"prompt style compact has no place for choices, and task {task.name} has them; use plain or chat")
    if task.prompt_kind == "arithmetic" and not re.fullmatch(r"[0-9+\-*/=,.() ]+", example.question):
        raise UserError(f"prompt style compact: the question is not a sum: {example.question[:40]!r}")
    if tokenizer is None:
        return example.question
    if not is_compact(tokenizer):
        raise UserError(f"prompt style compact: the tokenizer has no {THINK} and {REDACTED_TOKEN}; use plain or chat")
    held = [string for string in special_strings(tokenizer) if string in example.question]
    if held:
        raise UserError(f"prompt style compact: the question has {held[0]}, a token of the prompt: {example.question[:40]!r}")
    unknown = unknown_in(tokenizer, example.question)
    if unknown:
        raise UserError(
            f"prompt style compact: this model has no token for {', '.join(map(repr, unknown[:5]))}; use plain or chat"
        )
    return example.question
