"""Attributions as coloured text; `analysis.render` makes the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from markovlm.analysis.attribution import Attribution
from markovlm.analysis.render import (
    CUTS,
    false_equations,
    limit_of,
    method_of,
    nats,
    outcome,
    role,
    same_cot,
    split_unit,
    units_table,
    visible,
)
from markovlm.terminal.console import as_text

# Weak effects colour the letters, strong ones the background: this reads on light and on dark terminals.
_WARM = ("", "#c76a15", "#000000 on #f0883e", "bold #ffffff on #b3261e")
_COOL = ("", "#3d84d6", "#000000 on #79b8ff", "bold #ffffff on #1f5fbf")


def explain_text(attributions: Attribution | Sequence[Attribution]) -> Group:
    """For a rich console: question, coloured CoT, scale, the most load-bearing units, the answer. Readable without colour.

    Several attributions of one CoT (towards the gold answer and towards the model's own) share a question and a scale.
    """
    if isinstance(attributions, Attribution):
        attributions = [attributions]
    parts: list[RenderableType] = []
    for group in same_cot(attributions):
        first, limit = group[0], limit_of(group)
        parts.append(_line("question", visible(first.question)))
        if first.choices:
            parts.append(_line("choices", "  ".join(f"{chr(65 + i)}. {visible(c)}" for i, c in enumerate(first.choices))))
        for attribution in group:
            parts += _towards(attribution, limit)
        parts += [
            Text(),
            _line("drop", f"in nats per answer token, {method_of(first)}"),
            _scale(limit),
            _line("read", outcome(first)),
            *([_line("false", text)] if (text := false_equations(first)) else []),
            *([_line("gold", visible(first.gold))] if first.gold else []),
            Text(),
        ]
    return Group(*parts[:-1])


def _line(name: str, text: str) -> Text:
    return Text(f"{name:9} ", style="dim").append(text, style="not dim")


def _towards(attribution: Attribution, limit: float) -> list[RenderableType]:
    """The CoT coloured by its load for one answer, and the units that matter most."""
    target = visible(attribution.target.strip())
    head = Text(f"\ntowards the {role(attribution)} '{target}'", style="bold")
    head.append(f"  ln pi {attribution.logprob:.2f}", style="not bold dim")
    if not attribution.units:
        return [head, Text("the CoT is empty")]
    top = attribution.top()
    cot = Text()
    for number, unit in enumerate(attribution.units):
        lead, rest = split_unit(unit)
        style = shade(unit.drop, limit)
        cot.append(lead).append(rest, style=f"{style} underline" if number in top else style)
    return [head, cot, Text(), as_text(units_table(attribution))]


def shade(drop: float, limit: float) -> str:
    """The terminal style of a drop: none, or one of three shades of warm (load-bearing) or cool (hurts)."""
    level = sum(abs(drop) >= cut * limit for cut in CUTS)
    return (_WARM if drop > 0 else _COOL)[level]


def _scale(limit: float) -> Text:
    """The legend: each shade with the drop it begins at."""
    text = Text(f"{'scale':9} ", style="dim").append("hurts  ", style="not dim")
    for style, cut in zip(reversed(_COOL[1:]), reversed(CUTS), strict=True):
        text.append(f" {nats(-cut * limit)} ", style=f"not dim {style}").append(" ")
    text.append("0", style="not dim").append(" ")
    for style, cut in zip(_WARM[1:], CUTS, strict=True):
        text.append(f" {nats(cut * limit)} ", style=f"not dim {style}").append(" ")
    return text.append(" load-bearing", style="not dim")
