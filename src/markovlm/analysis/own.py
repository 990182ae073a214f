"""Studies that a user registers (`register.study`): a function from a `Study` to rows, kept and shown like the built-in ones."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from markovlm.analysis.study import Study
from markovlm.errors import UserError
from markovlm.plugins import calling, named
from markovlm.registry import STUDIES
from markovlm.studies.records import MAX_COLUMNS, MAX_OWN_ROWS, is_plain

_TAKEN = {"perturb", "bypass", "leak", "intervention", "explain", "transfer", "resample", "chains", "files", "report", "own"}
_LETTERS = 300  # of the question


def check_name(name: str, source: str) -> None:
    """Raises UserError for a name that can't be part of a file's name, or is that of one of our studies."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise UserError(f"{source}: study {name!r}: a name has lower-case letters, digits and _, such as late_answers")
    if name.removesuffix("_against") in _TAKEN:
        raise UserError(f"{source}: study {name!r}: markovlm already has a study or a key of that name")


def own_study(study: Study, name: str) -> tuple[dict[str, Any], Path]:
    """The result of the registered study `name`, and where it is kept."""
    ask = STUDIES[name]
    with calling(STUDIES, name, "it"):
        rows = _rows(ask(study), name)
    question = (inspect.getdoc(ask) or name.replace("_", " ")).splitlines()[0]
    result = {**study.header("own"), "study": name, "question": question[:_LETTERS], "rows": rows}
    return result, study.write(f"own-{name}", result)


def _rows(made: Any, name: str) -> list[dict[str, Any]]:
    """What a study gave, checked. Raises UserError if it is no table."""
    if isinstance(made, Mapping) or not isinstance(made, Iterable):
        raise UserError(f"{named(STUDIES, name)} returned {type(made).__name__}; it must return a list of rows, each a dict")
    rows = list(made)
    if len(rows) > MAX_OWN_ROWS:
        raise UserError(f"{named(STUDIES, name)} returned {len(rows):,} rows; at most {MAX_OWN_ROWS:,} are shown")
    return [_row(row, name) for row in rows]


def _row(row: Any, name: str) -> dict[str, Any]:
    if not isinstance(row, Mapping) or len(row) > MAX_COLUMNS:
        raise UserError(f"{named(STUDIES, name)}: a row must be a dict of at most {MAX_COLUMNS} columns, not {str(row)!r:.80}")
    for key, value in row.items():
        if not isinstance(key, str) or not _is_value(value):
            raise UserError(
                f"{named(STUDIES, name)}: {key}: {str(value)!r:.80}; a value must be text, a number, None, or a result of study.estimate"
            )
    return dict(row)


def _is_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        return set(value) >= {"mean", "ci95"} and len(value["ci95"]) == 2
    return is_plain(value)
