"""Estimates in sentences."""

from __future__ import annotations

from markovlm.intervals import MISSING, estimate_text, percent_text
from markovlm.studies.fields import Estimate, est


def cell_text(e: Estimate, scale: float = 1.0, places: int = 2) -> str:
    """`1.20 [0.90, 1.50]`"""
    mean, low, high = (None if v is None else scale * v for v in (e.mean, e.low, e.high))
    return estimate_text(mean, low, high, places=places)


def certain(e: Estimate) -> Estimate:
    """The estimate; ValueError without an interval: nothing is said of such a number in a sentence."""
    if e.mean is None or e.low is None or e.high is None:
        raise ValueError("an estimate without an interval cannot be put in a sentence")
    return e


def nats(e: Estimate, n: int | None = None, unit: str = "", token: str = "answer") -> str:
    """`1.20 [0.90, 1.50] nats per answer token (n=100)`. Raises ValueError without an interval."""
    return f"{cell_text(certain(e))} nats per {token} token{_counted(n, unit)}"


def points(e: Estimate, of: str = "") -> str:
    """`55 [45, 64] points of accuracy`, with " of accuracy" as `of`. Raises ValueError without an interval."""
    return f"{cell_text(certain(e), 100, 0)} points{of}"


def share(e: Estimate, n: int | None = None, unit: str = "") -> str:
    """`3 % [1, 6] (n=80)`. Raises ValueError without an interval."""
    return f"{percent_text(certain(e).mean or 0.0, e.low, e.high)}{_counted(n, unit)}"


def _counted(n: int | None, unit: str) -> str:
    return "" if n is None else f" (n={n:,}{' ' + unit if unit else ''})"


def opposite(e: Estimate) -> Estimate:
    """The same with the opposite sign: a drop of -0.2 is a rise of 0.2."""
    mean, low, high = (None if v is None else -v for v in (e.mean, e.high, e.low))
    return est(mean, low, high, e.n)


def severity_text(severity: float | None) -> str:
    """`40 %`"""
    return MISSING if severity is None else f"{100 * severity:.4g} %"


def spoken(name: str) -> str:
    """`truncate_front`, `Truncate-Front` -> `truncate front`"""
    return name.replace("_", " ").replace("-", " ").lower()
