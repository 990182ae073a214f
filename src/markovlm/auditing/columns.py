"""Tables of CoTs with any column names: which column is the question, the CoT, the gold answer.

Columns are found by the names that datasets and trainers give them (TRL, verl, OpenRLHF, Open-R1, OpenMathInstruct, conversations), or
named by the user (`--columns question=…,cot=…,answer=…`; `reward_model.ground_truth` is a key inside a column). A *cot* is used
unchanged; from a *completion* the final answer is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from markovlm.auditing.cutting import before_answer, gold_of
from markovlm.auditing.files import Record
from markovlm.auditing.rows import AuditRow, CotSource, Unfit, as_text, plain
from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS
from markovlm.tasks.choices import split_choices
from markovlm.tasks.mathqa import options
from markovlm.tasks.rows import DataRow, RowError, at_path, decoded, numbered_choices, text_list, without_labels

FIELDS: dict[str, str] = {
    "question": "what was asked: text, or a conversation whose last user message it is",
    "cot": "the chain of thought, used unchanged",
    "completion": "the whole reply, whose final answer is cut off",
    "answer": "the gold answer, or a solution that ends in it; a list: each counts as right",
    "choices": "for multiple choice: a list, or {text, label}",
    "group": "the group that the CoT belongs to; groups are compared",
    "truncated": "was the CoT cut off by a budget?",
    "correct": "was the writer's own answer right?",
    "hint": "what the prompt hinted about the answer, to see whether the CoT acknowledges it",
    "hint_answer": "the answer that the hint points to",
    "answer_with_hint": "what the writer answered with the hint; default the end of its completion or CoT",
    "answer_without_hint": "what the writer answered without it",
}
# By name, the likelier first. `answer` comes after the explicit ones: beside `expected_answer` it is the model's own.
_NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "query", "instruction", "input", "question_text", "messages", "conversations", "conversation"),
    "cot": ("cot", "chain_of_thought", "reasoning", "reasoning_content", "reasoning_trace", "rationale", "thinking", "thought", "thoughts"),
    "completion": (
        "completion", "completions", "response", "responses", "output", "outputs", "generation", "generations", "generated_solution",
        "generated_text", "model_output", "model_response", "solution", "messages", "conversations", "conversation",
    ),
    "answer": (
        "gold", "gold_answer", "gold_label", "expected_answer", "ground_truth", "gts", "reference_answer", "correct_answer", "correct_label",
        "true_answer", "target", "answer", "answerKey", "final_answer", "reward_model.ground_truth", "label", "solution",
    ),
    "choices": ("choices", "options"),
    "group": ("group",),
    "truncated": ("truncated",),
    "correct": ("correct", "is_correct"),
    "hint": ("hint",),
    "hint_answer": ("hint_answer", "hinted_answer", "hint_letter"),
    "answer_with_hint": ("answer_with_hint", "model_answer", "predicted_answer"),
    "answer_without_hint": ("answer_without_hint", "baseline_answer"),
}  # fmt: skip
_MODELS = ("model", "model_name", "generator")  # columns that groups go by where none is called so
_MOST_MODELS = 12
_REASONING = ("reasoning_content", "reasoning", "thinking")  # keys of a message
_LOOKED_AT = 50
_TRUE, _FALSE = ("true", "1", "1.0", "yes", "right", "correct"), ("false", "0", "0.0", "no", "wrong", "incorrect")

# Chat templates rendered as text: what the last user turn is between.
_TURNS = (
    (r"<\|im_start\|>user\n", r"<\|im_end\|>"),
    (r"<\|start_header_id\|>user<\|end_header_id\|>\s*", r"<\|eot_id\|>"),
    (r"<start_of_turn>user\n", r"<end_of_turn>"),
    (r"\[INST\]", r"\[/INST\]"),
    (r"<\|user\|>\s*", r"(?:<\|end\|>|</s>|<\|assistant\|>)"),
    (r"<｜User｜>", r"<｜Assistant｜>"),
    (r"(?:\A|\n)user\n", r"\nassistant\s*(?:\n|\Z)"),  # special tokens left out by the decoder
    (r"(?:\A|\n)\s*(?:Human|User):\s*", r"\n\s*(?:Assistant|AI):"),
)


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Field of `FIELDS` -> path of its column."""

    paths: Mapping[str, str]
    kind: str

    @property
    def missing(self) -> list[str]:
        """What an audit needs and no column was found for."""
        needed = {"question": {"question"}, "cot (or completion)": {"cot", "completion"}, "answer": {"answer"}}
        return [name for name, fields in needed.items() if not fields & self.paths.keys()]

    def get(self, row: Mapping[str, Any], name: str) -> Any:
        """The value of a field; None if the field has no column, or the row no value in it."""
        path = self.paths.get(name)
        return None if path is None else at_path(row, path)


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """`question=problem,cot=trace` -> a mapping. Raises UserError for an unknown field."""
    found: dict[str, str] = {}
    for part in (piece for text in texts for piece in text.split(",") if piece.strip()):
        name, equals, path = (piece.strip() for piece in part.partition("="))
        if not equals or not path:
            raise UserError(f"--columns {part.strip()}: must be NAME=COLUMN; names are {', '.join(FIELDS)}")
        if name not in FIELDS:
            raise UserError(f"--columns {name}: unknown; known are {', '.join(FIELDS)}")
        if found.get(name, path) != path:
            raise UserError(f"--columns {name}: given twice, as {found[name]} and {path}")
        found[name] = path
    if {"cot", "completion"} <= set(found):
        raise UserError("--columns: give cot or completion, not both")
    return found


def columns_of(rows: Sequence[Record], given: Mapping[str, str]) -> ColumnNames:
    """Which columns are what, the user's first; `missing` says what was not found.

    Raises UserError if a column that the user names is in no row.
    """
    first = [row for _, row in rows[:_LOOKED_AT]]
    for name, path in given.items():
        if all(at_path(row, path) is None for row in first):
            there = ", ".join(map(repr, list(dict.fromkeys(key for row in first for key in row))[:20])) or "nothing"
            raise UserError(f"--columns {name}={path}: no row has this column; the columns are {there}")
    paths = dict(given)
    taken = set(paths.values())
    if "question" not in paths:
        _find(paths, "question", first, taken)
    if not {"cot", "completion"} & set(paths) and not _find(paths, "cot", first, taken):
        _find(
            paths, "completion", first, taken - {paths.get("question", "")} if _is_conversation(paths.get("question")) else taken
        )
    if "answer" not in paths and not _find(paths, "answer", first, taken):
        letters = _spelled(first, "correct")  # AQuA's name for the right choice; elsewhere a verdict
        if letters is not None and letters not in taken and all(_flag(row.get(letters)) is None for row in first):
            paths["answer"] = letters
            taken.add(letters)
    if not {"cot", "completion"} & set(paths) and first and "####" in str(at_path(first[0], paths.get("answer", ""))):
        paths["completion"] = paths["answer"]  # GSM8K's own: a solution, and the answer behind ####
    for name in ("choices", "group", "truncated", "correct", "hint", "hint_answer", "answer_with_hint", "answer_without_hint"):
        if name not in paths:
            _find(paths, name, first, taken)
    return ColumnNames(paths, _kind(paths, first))


def _find(paths: dict[str, str], name: str, rows: Sequence[Mapping[str, Any]], taken: set[str]) -> bool:
    for candidate in _NAMES[name]:
        spelled = _spelled(rows, candidate)
        if spelled is not None and spelled not in taken:
            paths[name] = spelled
            taken.add(spelled)
            return True
    return False


def _spelled(rows: Sequence[Mapping[str, Any]], candidate: str) -> str | None:
    """The column as the rows write it, in any case, if one of them has something in it."""
    if "." in candidate:
        return candidate if any(at_path(row, candidate) is not None for row in rows) else None
    for row in rows:
        for key, value in row.items():
            if isinstance(key, str) and key.lower() == candidate.lower() and value is not None:
                return key
    return None


def _is_conversation(path: str | None) -> bool:
    return path is not None and path.lower() in ("messages", "conversations", "conversation")


def _kind(paths: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    first = rows[0] if rows else {}
    if paths.get("cot") == "cot" and paths.get("question") == "question":
        return "rows"
    if _is_conversation(paths.get("question")):
        return "messages"
    if "prompt" in first and "completion" in first:
        return "trl"
    return "verl" if {"input", "output", "gts"} <= set(first) or "reward_model" in first else "table"


def read_table(name: str, rows: Sequence[Record], columns: ColumnNames) -> CotSource:
    """One CoT per row, or a list of them."""
    found = CotSource(columns.kind)
    if columns.kind != "rows":
        what = {"cot": "unchanged", "completion": "up to its final answer"}
        said = ", ".join(
            f"{field}={path}" + (f" ({what[field]})" if field in what else "") for field, path in columns.paths.items()
        )
        found.notes.append(f"{name}: columns are read as {said}; --columns changes this")
    group_by = columns.paths.get("group") or _model_column(rows)
    if group_by is not None and "group" not in columns.paths:
        found.notes.append(f"{name}: groups come from column {group_by!r}; --columns group=… changes this")
    for line, row in rows:
        where = f"{name}:{line}"
        try:
            found.rows += _rows(row, columns, group_by, where)
        except Unfit as error:
            found.skipped.append(f"{where}: {error}")
    return found


def _model_column(rows: Sequence[Record]) -> str | None:
    """A column of few models: CoTs of several are not one group."""
    for candidate in _MODELS:
        values = {row.get(candidate) for _, row in rows if isinstance(row.get(candidate), str)}
        if 2 <= len(values) <= _MOST_MODELS and len(values) < len(rows):
            return candidate
    return None


def _rows(row: Mapping[str, Any], columns: ColumnNames, group_by: str | None, where: str) -> Iterator[AuditRow]:
    path = columns.paths
    question = _question(columns.get(row, "question"), path["question"])
    labels, choices = _choices(row, columns.get(row, "choices"))
    answer, also, place = _gold(columns.get(row, "answer"), row, path["answer"], labels, choices)
    groups = row.get(group_by) if group_by is not None and group_by in row else columns.get(row, "group")
    if groups is not None and not isinstance(groups, str | int | float):
        raise Unfit(f"{'group'!r} is {type(groups).__name__}, not text")
    right = columns.get(row, "correct")
    written = list(_written(row, columns))
    verdicts = right if isinstance(right, list) and len(right) == len(written) else [right] * len(written)
    for (cot, final), verdict in zip(written, verdicts, strict=True):
        yield AuditRow(
            question=question,
            cot=cot,
            answer=answer,
            choices=choices,
            group="" if groups is None else plain(str(groups)),
            right=_flag(verdict),
            truncated=_flag(columns.get(row, "truncated")),
            final=final,
            where=where,
            also=also,
            place=place,
            hint=_optional(columns.get(row, "hint")),
            hinted=_optional(columns.get(row, "hint_answer")),
            with_hint=_optional(columns.get(row, "answer_with_hint")),
            without_hint=_optional(columns.get(row, "answer_without_hint")),
        )


def _optional(value: Any) -> str | None:
    return plain(str(value)).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _flag(value: Any) -> bool | None:
    """A verdict: bool, 0 or 1, or words for them."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int | float) else ""
    return True if text in _TRUE else False if text in _FALSE else None


# ------------------------------------------------------------------------------------------------------- question and CoT


def _question(value: Any, name: str) -> str:
    conversation = _conversation(value)
    if conversation:
        text = _text(_last(conversation, "user").get("content"))
        if text is None or not text.strip():
            raise Unfit(f"{name!r} has no user message")
        return text.strip()
    if not isinstance(value, str | int | float) and value is not None:
        raise Unfit(f"{name!r} is {type(value).__name__}, neither text nor a list of messages")
    text = as_text(value, repr(name), absent=f"no {name!r}").strip()
    return _last_user_turn(text)


def _last_user_turn(prompt: str) -> str:
    """Of a prompt with a chat template in it, what the user said last."""
    for opened, closed in _TURNS:
        turns = re.findall(rf"{opened}(.*?)(?={closed})", prompt, re.DOTALL)
        if turns and turns[-1].strip():
            return turns[-1].strip()
    return prompt


def _written(row: Mapping[str, Any], columns: ColumnNames) -> Iterator[tuple[str, str | None]]:
    """Each CoT of a row, with the final answer that was cut off it."""
    whole = "cot" in columns.paths
    name = columns.paths["cot" if whole else "completion"]
    value = columns.get(row, "cot" if whole else "completion")
    if whole:
        for one in value if isinstance(value, list) else [value]:
            there = ", ".join(map(repr, list(row)[:10])) or "nothing"
            yield as_text(one, repr(name), empty=True, absent=f"no {name!r}; the row has {there}"), None
        return
    conversation = _conversation(value)
    for one in [value] if conversation or not isinstance(value, list) else value:
        yield _reasoning(one, name)


def _reasoning(completion: Any, name: str) -> tuple[str, str | None]:
    """The CoT of a completion and its answer. Where the chat template parses replies, TRL logs the reasoning apart."""
    apart = _last(_conversation(completion), "assistant")
    for key in _REASONING:
        text = apart.get(key)
        if isinstance(text, str) and text.strip():
            return plain(text).strip(), _text(apart.get("content")) or None
    if isinstance(completion, str) and not apart:
        return before_answer(plain(completion))
    said = _text(apart.get("content"))
    if said is None:
        raise Unfit(f"{name!r} is {type(completion).__name__}, neither text nor a list of messages")
    return before_answer(said)


def _conversation(value: Any) -> list[Mapping[str, Any]]:
    """Messages with role and content, however they are written down; empty if it is none."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        value = decoded(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    messages = [_message(cast(Mapping[str, Any], one)) for one in value if isinstance(one, Mapping)]
    return messages if messages and len(messages) == len(value) and all("role" in one for one in messages) else []


def _message(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """`{"from": "gpt", "value": …}`, as ShareGPT has it, in the names of the others."""
    if "role" in one or "from" not in one:
        return one
    role = {"human": "user", "gpt": "assistant", "model": "assistant"}.get(str(one["from"]), str(one["from"]))
    return {"role": role, "content": one.get("value")}


def _last(conversation: Sequence[Mapping[str, Any]], role: str) -> Mapping[str, Any]:
    """Empty if there is none."""
    return next((message for message in reversed(conversation) if message.get("role") == role), {})


def _text(content: Any) -> str | None:
    """A message's content: text, or parts of which some are text."""
    if isinstance(content, str):
        return plain(content)
    parts = content if isinstance(content, Sequence) else ()
    texts = [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    return plain("\n".join(texts)) if texts else None


# ------------------------------------------------------------------------------------------------------- gold and choices


def _gold(
    value: Any, row: Mapping[str, Any], name: str, labels: Sequence[str], choices: Sequence[str]
) -> tuple[str, tuple[str, ...], int | None]:
    """(gold answer, others that count as right, its place among the choices as the source counts them)."""
    value = decoded(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if isinstance(value, Sequence) and not isinstance(value, str):
        listed = [one for one in value if one is not None]
        if not listed:
            raise Unfit(f"{name!r} is empty")
        first, *others = (_one_gold(one, row, name, labels, choices) for one in listed)
        return first[0], tuple(dict.fromkeys(text for text, _ in others if text != first[0])), first[1]
    text, place = _one_gold(value, row, name, labels, choices)
    return text, (), place


def _one_gold(
    value: Any, row: Mapping[str, Any], name: str, labels: Sequence[str], choices: Sequence[str]
) -> tuple[str, int | None]:
    there = ", ".join(map(repr, list(row)[:10])) or "nothing"
    text = as_text(value, repr(name), absent=f"no {name!r}; the row has {there}").strip()
    if choices and (bare := text.strip("() ").removesuffix(".0")) not in choices:
        if bare in labels:
            return LETTERS[labels.index(bare)], None
        if re.fullmatch(r"\d{1,2}", bare, re.ASCII):
            return text, int(bare)
    return gold_of(text), None


def _choices(row: Mapping[str, Any], value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(labels, texts) of the choices of a row, without the labels that their texts carry; both empty if there are none."""
    labels: tuple[str, ...] = ()
    try:
        if value is None:
            found = numbered_choices(DataRow("", 0, "", row))
            labels, texts = found if found is not None else ((), ())
        else:
            value = decoded(value) if isinstance(value, str) and value.lstrip().startswith("{") else value
            if isinstance(value, Mapping):
                table = cast(Mapping[str, Any], value)
                if "text" in table:
                    labels = text_list(table.get("label", ()), "choices.label")
                    texts = text_list(table["text"], "choices.text")
                else:  # {"A": "iron", "B": "wood"}
                    labels, texts = tuple(map(str, table)), tuple(as_text(one, "a choice") for one in table.values())
            elif isinstance(value, str) and not value.lstrip().startswith("["):
                _, texts = split_choices(f"Which?\n{value}")  # lines `A. …`
                texts = texts or options(value)  # `a ) 38 , b ) 27.675`, as in MathQA
            else:
                listed = value if isinstance(value, list) else [value]
                listed = [one.get("text", one.get("content")) if isinstance(one, Mapping) else one for one in listed]
                texts = without_labels(text_list(listed if isinstance(value, list) else value, "choices"))
    except RowError as error:
        raise Unfit("'choices' must be a list of strings" if "choices" in str(error) else str(error)) from None
    if texts and not 2 <= len(texts) <= len(LETTERS):
        raise Unfit(f"{len(texts)} choices, expected 2 to {len(LETTERS)}")
    return tuple(label for label in labels if label not in LETTERS[: len(texts)]) and labels, tuple(map(plain, texts))
