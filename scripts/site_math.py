"""Formulas of the site: TeX in the Markdown (as GitHub reads it) becomes MathML when the site is built, so no script and no network.

A formula of its own is a ```` ```math ```` block, one within a line stands between $` and `$. mkdocs.yml names this file as a hook.
Browsers draw MathML well only with a font made for it, which not every machine has: one goes with the site (site.css names it).
"""

from __future__ import annotations

import re
import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from latex2mathml.converter import convert

DISPLAY = re.compile(r"^```math\n(.*?)\n```$", flags=re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`\n]+)`\$")
FONT = "STIXTwoMath-Regular.ttf"
_ENVIRONMENT = re.compile(r"\\(begin|end)\{aligned\}")  # what GitHub takes; the converter knows the same as align*
_OPERATORS = {"~": "∼", "⟶": "⟶"}  # the converter makes identifiers of them, without space around
_LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}


def to_mathml(tex: str, display: bool = False) -> str:
    """ValueError where the converter did not take in all of it: it passes on what it does not know."""
    html = convert(_ENVIRONMENT.sub(r"\\\1{align*}", tex), display="block" if display else "inline", xmlns="")
    if "\\" in html or "<mi>&</mi>" in html:
        raise ValueError(f"no MathML for the formula {tex!r}")
    element = ET.fromstring(html)
    for node in list(element.iter()):
        text = (node.text or "").strip()
        if node.tag == "mi" and text in _OPERATORS:
            node.tag, node.text = "mo", _OPERATORS[text]
        elif node.tag == "mo" and text in ("min", "max"):  # as an operator it would stand apart from its "("
            node.tag = "mi"
        elif display and node.tag in _LIMITS and node[0].text in ("∑", "∏"):
            node.tag = _LIMITS[node.tag]
        _space_functions(node)
    return ET.tostring(element, encoding="unicode")


def _space_functions(row: ET.Element) -> None:
    """TeX's thin spaces around "ln": after it unless "(" follows, before it unless an operator stands there."""
    children = list(row)
    for i in reversed(range(len(children))):
        if children[i].tag != "mi" or children[i].text != "ln":
            continue
        if i + 1 < len(children) and children[i + 1].text != "(":
            row.insert(i + 1, ET.Element("mspace", width="0.167em"))
        if i > 0 and (children[i - 1].text in ("∇", ")") or children[i - 1].tag not in ("mo", "mspace")):
            row.insert(i, ET.Element("mspace", width="0.167em"))


_made: list[str] = []  # of the page at hand: Markdown must not see MathML, whose "_" and "|" mean something to it


def on_page_markdown(markdown: str, **_: Any) -> str:
    _made.clear()

    def keep(tex: str, display: bool) -> str:
        _made.append(to_mathml(tex, display))
        return f"FORMULA{len(_made) - 1}ALUMROF"

    markdown = DISPLAY.sub(lambda found: keep(found[1], True), markdown)
    return INLINE.sub(lambda found: keep(found[1], False), markdown)


def on_page_content(html: str, **_: Any) -> str:
    return re.sub(r"FORMULA(\d+)ALUMROF", lambda found: _made[int(found[1])], html)


def on_post_build(config: Any, **_: Any) -> None:
    font = distribution("ziamath").locate_file(f"ziamath/fonts/{FONT}")
    shutil.copyfile(str(font), Path(config["site_dir"]) / "assets" / FONT)
