"""Checks of the Python API's arguments: a UserError in one line, where Python would go on or give a traceback."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, cast

from markovlm.errors import UserError

PATH = (str, os.PathLike)


def listed(name: str, given: object, kind: type | tuple[type, ...], wanted: str) -> list[Any]:
    """The items as a list. A single string is refused: it would be taken letter by letter."""
    if isinstance(given, str | bytes | os.PathLike | Mapping) or not isinstance(given, Iterable):
        raise UserError(f"{name}: must be a list of {wanted}, not {shown(given)}")
    items = list(cast("Iterable[Any]", given))
    for number, item in enumerate(items):
        if not isinstance(item, kind):
            raise UserError(f"{name}: must be a list of {wanted}, but [{number}] is {shown(item)}")
    return items


def require_count(name: str, value: object) -> None:
    """Raise UserError unless it is a whole number above 0; numpy's integers count."""
    if not isinstance(value, Integral):
        raise UserError(f"{name} {shown(value)}: must be a whole number, at least 1")
    if int(value) < 1:
        raise UserError(f"{name} {value}: must be at least 1")


def require_temperature(name: str, value: object) -> None:
    """Raise UserError unless it is a finite number of 0 or more."""
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise UserError(f"{name} {shown(value)}: must be a finite number, 0 (greedy) or more")


def require_text(name: str, value: object, such_as: str = "") -> None:
    """Raise UserError unless it is a str."""
    if not isinstance(value, str):
        raise UserError(f"{name} {shown(value)}: must be a string{such_as and f' such as {such_as}'}")


def mapping(config: object) -> dict[str, Any]:
    """The nested configuration as a mapping; None is an empty one."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise UserError(f"config: must be a mapping of keys, not {shown(config)}")
    return dict(cast("Mapping[str, Any]", config))


def shown(value: object) -> str:
    """The value as a short text on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
