"""The page of an audit: one self-contained HTML file, everything from the audited text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from markovlm.analysis.render import card_of, nats, visible, with_interval
from markovlm.auditing.measures import MEASURES
from markovlm.auditing.plan import AuditRequest
from markovlm.auditing.reading import ReaderRead
from markovlm.auditing.result import PAGE
from markovlm.runs.rows import replace_whole


def write_page(request: AuditRequest, result: Mapping[str, Any], reads: Sequence[ReaderRead]) -> Path:
    """`audit.html` beside the readings."""
    path = request.out / PAGE
    title = ", ".join(file.name for file in request.files[:3]) + (" and more" if len(request.files) > 3 else "")
    replace_whole(path, audit_html(result, reads, title).encode("utf-8", "replace"))
    return path


def audit_html(result: Mapping[str, Any], reads: Sequence[ReaderRead], title: str) -> str:
    """No scripts, nothing from outside."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("markovlm.auditing", "templates"), PackageLoader("markovlm.analysis", "templates")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=lambda value: visible(str(value)),
        one_line=lambda value: visible(" ".join(str(value).split())),
        nats=nats,
        ci=with_interval,
    )
    cards, number = [], 0
    for group, own in reads[0].groups.items():
        for one in own.shown:
            number += 1
            cards.append({**card_of(number, [one]), "group": group})
    return environment.get_template("audit.html").render(title=title, result=result, cards=cards, measures=MEASURES)
