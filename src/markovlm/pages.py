"""Self-contained HTML pages: one Jinja environment, one head (`templates/head.html`), one style sheet and one table for all of them."""

from __future__ import annotations

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup, escape


def page_environment(*packages: str) -> Environment:
    """Templates of these packages (`markovlm.analysis`), from the first that has one; values are escaped.

    `page_head()` of `head.html` allows a page nothing but its own styles, unless it is given another Content-Security-Policy.
    """
    loaders = [PackageLoader(package, "templates") for package in (*packages, "markovlm")]
    environment = Environment(loader=ChoiceLoader(loaders), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(breakable=breakable, interval_apart=interval_apart)
    return environment


def breakable(name: str) -> Markup:
    """A dotted or underscored name with line breaks allowed after dots and underscores."""
    return Markup("").join(escape(part) + Markup("<wbr>") for part in re.split(r"(?<=[._/])", name))


def interval_apart(text: str) -> Markup:
    """`0.55 [0.45, 0.64]` with the interval in <small>."""
    number, bracket, rest = text.partition(" [")
    return escape(number) + (Markup(" <small>[{}</small>").format(rest) if bracket else "")
