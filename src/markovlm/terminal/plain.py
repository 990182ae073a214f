"""Text made safe for a terminal: text of models, datasets and logs may contain escape sequences."""

from __future__ import annotations

import re

import click

# C0 but tab and newline, DEL, C1 (8-bit escape sequences), and what turns the direction of writing around
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_LONE = re.compile("[\ud800-\udfff]")  # half a surrogate pair: no encoding has it


def printable(text: str) -> str:
    """The text with control characters made visible: ESC as ␛, others as ␇, ␡ or �. Tabs and newlines stay."""
    return _LONE.sub("�", _CONTROL.sub(_shown, text))


def escaped_json(text: str) -> str:
    """JSON in which what `printable` shows is escaped: the same value, but nothing that acts on a terminal."""
    return _LONE.sub(_escape, _CONTROL.sub(_escape, text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"


def say(line: str, err: bool = False) -> None:
    """Print a line of the command line: results on standard output, everything else (`err`) on standard error."""
    click.echo(printable(line), err=err)
