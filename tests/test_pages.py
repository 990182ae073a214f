"""Every page has one head, and allows nothing from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from markovlm.pages import page_environment

TEMPLATES = sorted(Path(__file__).parents[1].joinpath("src", "markovlm").rglob("templates/*.html"))


def test_the_head() -> None:
    template = page_environment().from_string(
        '{% from "head.html" import page_head %}\n{{ page_head() }}\n<title>{{ title }}</title>\n'
    )
    lines = template.render(title="<b>").splitlines()
    assert lines[0] == "<!doctype html>"
    assert """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""" in lines
    assert lines[-1] == "<title>&lt;b&gt;</title>"


def test_a_page_may_be_allowed_more() -> None:
    given = "default-src 'none'; script-src 'unsafe-inline'"
    template = page_environment().from_string('{% from "head.html" import page_head %}{{ page_head("' + given + '") }}')
    assert f'<meta http-equiv="Content-Security-Policy" content="{given}">' in template.render()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_other_template_writes_a_head(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ("<!doctype" in text) == (path.name == "head.html")
    if "</head>" in text:
        assert "{{ page_head(" in text
    if 'page_head("' in text:
        assert "page_head(\"default-src 'none'; " in text
