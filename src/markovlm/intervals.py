"""How an estimate is written in the terminal, in reports and on pages: `0.932 [0.907, 0.951]`; a share, a p-value, a duration.

A missing value is a dash; an estimate without an interval is `0.932 [—]`. All numbers of an estimate have the same number of decimals,
and no number other than 0 is written as 0, so that it is always visible on which side of 0 an interval lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "—"


def decimal_texts(values: Sequence[float], places: int, *, signed: bool = False, most: int = 5) -> list[str]:
    """Numbers with equally many decimals, at least `places`; beyond `most`, as powers of ten. A rounded 0 has no minus sign."""
    while places < most and any(v != 0 and round(v, places) == 0 for v in values):
        places += 1
    sign = "+" if signed else ""
    return [
        f"{v:{sign}.0e}" if v != 0 and round(v, places) == 0 else f"{round(v, places) + 0.0:{sign},.{places}f}" for v in values
    ]


def estimate_text(
    mean: float | None, low: float | None = None, high: float | None = None, *, places: int = 3, signed: bool = False
) -> str:
    """`0.932 [0.907, 0.951]`, with `signed` `+0.932 [+0.907, +0.951]`. None and NaN are written as missing."""
    if mean is None or math.isnan(mean):
        return MISSING
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{decimal_texts([mean], places, signed=signed)[0]} [{MISSING}]"
    middle, lower, upper = decimal_texts([mean, low, high], places, signed=signed)
    return f"{middle} [{lower}, {upper}]"


def found_text(found: Mapping[str, Any] | None, places: int = 3) -> str:
    """The same for `{"mean": 0.932, "ci95": [0.907, 0.951]}`, as studies and evaluations store it."""
    return MISSING if found is None else estimate_text(found["mean"], *found["ci95"], places=places)


def percent_text(share: float, low: float | None = None, high: float | None = None, *, places: int = 0) -> str:
    """`57 %` for .571, with `places=1` `57.1 %`; with an interval `57.1 % [54.4, 59.8]`."""
    mean, *bounds = decimal_texts([100 * v for v in (share, low, high) if v is not None], places)
    return f"{mean} % [{', '.join(bounds)}]" if len(bounds) == 2 else f"{mean} %"


def p_text(p: float) -> str:
    """`0.012`, `< 0.001`"""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def duration_text(seconds: float) -> str:
    """`40 seconds`, `12 minutes`, `3.5 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
