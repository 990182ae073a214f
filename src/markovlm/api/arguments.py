"""What the Python API asks of its arguments before it uses them: UserError in one line, where Python would go on or give a traceback."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, cast

from markovlm.errors import UserError

PATH = (str, os.PathLike)


def listed(name: str, given: object, kind: type | tuple[type, ...], wanted: str) -> list[Any]:
    """The items of a list. A text alone is refused: it would be taken letter by letter."""
    if isinstance(given, str | bytes | os.PathLike | Mapping) or not isinstance(given, Iterable):
        raise UserError(f"{name}: must be a list of {wanted}, not {shown(given)}")
    items = list(cast("Iterable[Any]", given))
    for number, item in enumerate(items):
        if not isinstance(item, kind):
            raise UserError(f"{name}: must be a list of {wanted}, but [{number}] is {shown(item)}")
    return items


def require_count(name: str, value: object) -> None:
    """A whole number above 0; numpy's too."""
    if not isinstance(value, Integral):
        raise UserError(f"{name} {shown(value)}: must be a whole number, at least 1")
    if int(value) < 1:
        raise UserError(f"{name} {value}: must be at least 1")


def require_temperature(name: str, value: object) -> None:
    """A finite number of 0 or more."""
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise UserError(f"{name} {shown(value)}: must be a finite number, 0 (greedy) or more")


def require_text(name: str, value: object, such_as: str = "") -> None:
    """A str."""
    if not isinstance(value, str):
        raise UserError(f"{name} {shown(value)}: must be a text{such_as and f' such as {such_as}'}")


def mapping(config: object) -> dict[str, Any]:
    """A nested configuration; None is an empty one."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise UserError(f"config: must be a mapping of keys, not {shown(config)}")
    return dict(cast("Mapping[str, Any]", config))


def shown(value: object) -> str:
    """Short and on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
