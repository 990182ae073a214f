"""Pages to read offline: one Jinja environment and one head (`templates/head.html`) for all of them."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader


def page_environment(*packages: str) -> Environment:
    """Templates of these packages (`markovlm.analysis`), of the first that has one; what is put into them is escaped.

    `page_head()` of `head.html` allows a page nothing but its own styles, unless it is given another Content-Security-Policy.
    """
    loaders = [PackageLoader(package, "templates") for package in (*packages, "markovlm")]
    return Environment(loader=ChoiceLoader(loaders), autoescape=True, trim_blocks=True, lstrip_blocks=True)
