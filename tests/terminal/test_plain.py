"""What models and logs say reaches a terminal as text: no escape sequence, no bell, no text that turns around."""

from __future__ import annotations

import io
import json

import pytest
from rich.table import Table
from rich.text import Text

from markovlm.cli.flags import print_json
from markovlm.cli.main import main
from markovlm.evaluation.ask import Asked
from markovlm.present.table import plain, table_of
from markovlm.terminal import console
from markovlm.terminal.ask import show_asked
from markovlm.terminal.plain import printable, say

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2Jb\rc\u202edetrevni\x08\x7f\x00\ud800\tz\n"
ALLOWED = "\n\t"


def controls(text: str) -> list[str]:
    return [c for c in text if (ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066\ud800") and c not in ALLOWED]


def test_control_characters_are_shown_and_nothing_else_is_touched() -> None:
    assert printable(HOSTILE) == "a␛[31mred␛]0;title␇�2Jb␍c�detrevni␈␡␀�\tz\n"
    plain = "Zürich 東京 🙂 é ​\n\t"
    assert printable(plain) == plain


def test_the_console_prints_hostile_text_as_text_and_keeps_its_own_colours() -> None:
    out = io.StringIO()
    made = console.PlainConsole(file=out, force_terminal=True, color_system="standard", highlight=False, width=200)
    table = Table()
    table.add_column(HOSTILE)
    table.add_row(Text(HOSTILE))
    ours = console.as_text(table_of("hostile", HOSTILE, [HOSTILE], {HOSTILE: plain}))
    for one in (Text(HOSTILE, style="bold"), HOSTILE.replace("[", "\\["), table, ours):
        made.print(one)
        made.print(one, soft_wrap=True)
    said = out.getvalue()
    assert "\x1b[1m" in said  # bold, by us
    assert "\x1b[31m" not in said
    for style in ("\x1b[1m", "\x1b[0m"):
        said = said.replace(style, "")
    assert controls(said) == []
    assert said.count("␛[31mred") >= 8


def test_both_streams_are_such_consoles(capsys: pytest.CaptureFixture[str]) -> None:
    console.stdout().print(Text(HOSTILE))
    console.stderr().print(Text(HOSTILE))
    say(HOSTILE)
    say(HOSTILE, err=True)
    printed = capsys.readouterr()
    assert controls(printed.out + printed.err) == []


def test_a_bar_has_a_label_that_is_text() -> None:
    out = io.StringIO()
    made = console.PlainConsole(file=out, force_terminal=True, width=120)
    with console.counting(made, "[/] \x1b]0;x\x07 [red]", 2) as advance:
        advance(1)
    assert "[/] ␛]0;x [red" in out.getvalue()  # rich itself leaves the bell out


def test_errors_and_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "no\x1b[31msuch\x9b2J"]) == 2
    assert controls(capsys.readouterr().err) == []
    print_json({"cot": HOSTILE})
    printed = capsys.readouterr().out
    assert controls(printed) == []
    assert json.loads(printed) == {"cot": HOSTILE}


def test_ask_shows_control_characters_of_the_model_and_sends_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Question, CoT, choices, and both an answer that was read and a text in which none was found."""
    for answer in (HOSTILE, None):
        show_asked(HOSTILE, Asked(HOSTILE, HOSTILE, answer, HOSTILE, 3, (HOSTILE, "b")))
    printed = capsys.readouterr()
    assert controls(printed.out + printed.err) == []
    assert printed.out.count("a␛[31mred␛]0;title") >= 7  # shown, not dropped
    assert "\\x1b[31mred" in printed.out  # the text without an answer is quoted
