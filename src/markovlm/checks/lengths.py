"""Whether reference answers fit into the limit on completions.

No tokenizer is needed for what is certain: the usual byte-level BPE tokenizers never join two words, nor two runs of digits, so a text has at
least as many tokens as it has those (runs of digits: one token for each three). It has more: punctuation, and words of several tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import quantiles

from markovlm.checks.finding import CheckFinding
from markovlm.errors import UserError
from markovlm.intervals import percent_text
from markovlm.tasks.files import read_rows
from markovlm.tasks.rows import DataRow, at_path

_PIECE = re.compile(r"[^\W\d_]+|\d{1,3}")
_COLUMNS = (
    "solution", "answer", "response", "completion", "output", "rationale", "reasoning", "cot", "target", "extra_info.answer",
)  # fmt: skip
_MOST = 20_000  # rows
_SOME, _MANY = 0.05, 0.5
_LEAST = 8


def at_least(text: str) -> int:
    """The minimum number of tokens that a text can have: `"17 + 4 = 21"` -> 3."""
    return len(_PIECE.findall(text))


def reference_lengths(path: Path, column: str | None = None) -> list[int]:
    """Of each row's answer; without `column`, of the longest of its usual columns. Raises UserError if there are fewer than eight."""
    lengths = list(islice(_lengths(path, column), _MOST))
    if len(lengths) < _LEAST:
        where = f"column {column!r}" if column else f"a column such as {', '.join(_COLUMNS[:4])} (--answers-column)"
        raise UserError(f"{path}: {len(lengths)} reference answers; at least {_LEAST} rows with {where} are needed")
    return lengths


def _lengths(path: Path, column: str | None) -> Iterator[int]:
    for row in read_rows(path):
        if isinstance(row, DataRow):
            texts = [value for name in ((column,) if column else _COLUMNS) if isinstance(value := at_path(row.values, name), str)]
            if texts:
                yield max(map(at_least, texts))


def limit_against(lengths: list[int], limit: float | None, said: str, name: str) -> CheckFinding | None:
    """A finding if more than one in twenty answers is certainly longer. `said` is the setting with its value, `name` without."""
    over = sum(length > limit for length in lengths) / len(lengths) if limit else 0.0
    if limit is None or over <= _SOME:
        return None
    needed = -(-int(quantiles(lengths, n=20)[-1] * 1.5) // 64) * 64
    return CheckFinding(
        "limit_under_answers", "fails" if over >= _MANY else "warn",
        f"{said}: at least {percent_text(over)} of {len(lengths):,} reference answers are longer (words and numbers alone), so such completions are "
        "cut off before they answer", f"{name}={needed} or more", "https://github.com/huggingface/trl/issues/5697",
    )  # fmt: skip
