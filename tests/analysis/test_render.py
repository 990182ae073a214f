"""The explanation on a terminal with and without colour, and as a page; hostile texts in both."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from markovlm.analysis.attribution import Attribution, UnitDrop, aggregate
from markovlm.analysis.render import explain_html, limit_of, nats, role, visible
from markovlm.terminal.attribution import explain_text, shade

UNITS = (
    UnitDrop("17", "number", 0.0, 1.5),
    UnitDrop("+", "operator", 0.2, 0.01),
    UnitDrop(" 4", "number", 0.3, -0.9),
    UnitDrop(" =", "operator", 0.4, 0.3),
    UnitDrop(" 21", "number", 0.5, 2.0),
    UnitDrop("\n", "space", 0.7, 0.0),
    UnitDrop("so", "filler", 0.8, -0.25),
)
RIGHT = Attribution(
    id="q1", question="17+4", gold="21", choices=(), cot="17+ 4 = 21\nso", answer=" 21", extracted="21", correct=True,
    target=" 21", logprob=-0.25, units=UNITS, how="remove", by="word",
)  # fmt: skip
WRONG = replace(RIGHT, gold="22", correct=False, target=" 22", logprob=-4.5)
OWN = replace(WRONG, target=" 21", logprob=-0.5)
HOSTILE = [
    "<script>document.body.dataset.hacked = 1</script>",
    "</span><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "[bold red]x[/bold red] [link=file:///etc]y[/link] [/]",
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x1b]8;;http://x\x07",
    "a\u202eb\u2066c\u200bd",
    "\x00\x08\x7f\x9b1m\r\t",
    "\ud83d",
    ":smile: \\",
]


def printed(renderable, width=100, **options):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, **options).print(renderable)
    return out.getvalue()


def plain(renderable, width=100):
    return printed(renderable, width, color_system=None, force_terminal=False)


def hostile(text):
    return replace(
        RIGHT, id=text, question=text, gold=text, choices=(text,), cot=text, answer=text, extracted=text, target=text,
        units=(UnitDrop(text, "word", 0.0, 1.0), UnitDrop(" b", "word", 0.5, 0.5)),
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, and the text of every element of a class or name."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def units(self):
        """The spans and strong elements that units became."""
        return [(tag, a) for tag, a in self.tags if tag in ("span", "strong") and re.search(r" nats, \w+$", a.get("title", ""))]


# -------------------------------------------------------------------------------------------------------------- shared


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.234, "+1.23"),
        (-0.1, "-0.10"),
        (0.042, "+0.042"),
        (-0.0042, "-0.004"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (-1e-9, "0.000"),
    ],
)
def test_nats(value, text):
    assert nats(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1bb", "a␛b"),
        ("\x00\t\r\x7f", "␀␉␍␡"),
        ("a\nb é 東 😀", "a\nb é 東 😀"),
        ("\u202e", "<U+202E>"),
        ("\x9b", "<U+009B>"),
        ("\ud83d", "<U+D83D>"),
        ("\u2028", "<U+2028>"),
        ("👩\u200d🚀", "👩\u200d🚀"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


@given(st.text())
def test_visible_text_can_be_written_and_controls_nothing(text):
    shown = visible(text)
    shown.encode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", shown)


def test_the_scale_ends_at_the_largest_drop_but_not_in_the_noise():
    assert limit_of([RIGHT]) == 2.0
    assert limit_of([replace(RIGHT, units=(UnitDrop("1", "number", 0, -3.0),)), RIGHT]) == 3.0
    assert limit_of([replace(RIGHT, units=(UnitDrop("1", "number", 0, 0.001),))]) == 0.1
    assert limit_of([]) == 0.1


def test_whose_answer_is_explained():
    assert [role(a) for a in (RIGHT, WRONG, OWN, replace(WRONG, target="5"))] == [
        "gold answer",
        "gold answer",
        "model's own answer",
        "answer",
    ]
    assert role(replace(WRONG, answer=" 21 apples", target=" 21")) == "model's own answer"  # as it was read


# ------------------------------------------------------------------------------------------------------------ terminal


def test_shades_diverge():
    # the scale ends at 2: shades begin at 0.2, 0.8 and 1.4
    warm = [shade(d, 2.0) for d in (0.1, 0.2, 0.8, 1.4, 2.0)]
    cool = [shade(-d, 2.0) for d in (0.1, 0.2, 0.8, 1.4, 2.0)]
    assert warm[0] == cool[0] == shade(0.0, 2.0) == ""
    assert len({*warm, *cool}) == 7
    assert warm[3] == warm[4]


def test_without_colour_the_table_carries_it():
    text = plain(explain_text(RIGHT))
    assert "\x1b" not in text
    assert "question  17+4\n" in text
    assert "towards the gold answer '21'  ln pi -0.25" in text
    rows = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]
    assert rows == [
        ["1", "21", "number", "50 %", "+2.00", "17+ 4 = «21»↵so"],
        ["2", "17", "number", "0 %", "+1.50", "«17»+ 4 = 21↵so"],
        ["3", "=", "operator", "40 %", "+0.30", "17+ 4 «=» 21↵so"],
        ["hurts", "4", "number", "30 %", "-0.90", "17+ «4» = 21↵so"],
    ]
    assert re.search(r"^read +21, right$", text, re.MULTILINE)
    assert re.search(r"^gold +21$", text, re.MULTILINE)
    assert "each word removed in turn" in text


def test_colours_of_the_cot():
    text = printed(explain_text(RIGHT), force_terminal=True, color_system="truecolor", no_color=False)
    line = next(line for line in text.splitlines() if "17" in line and "48;2" in line)
    #                 strong warm, underlined: 17            nothing: +     a space, middle cool: 4
    assert re.search(r"\x1b\[1;4;38;2;255;255;255;48;2;179;38;30m17\x1b\[0m\+ \x1b\[38;2;0;0;0;48;2;121;184;255m4\x1b\[0m", line)


def test_no_color_leaves_none(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(explain_text(RIGHT), force_terminal=True, color_system="truecolor")
    assert not re.search(r"\x1b\[[\d;]*[34]8;", text)


def test_a_wrong_answer_is_explained_both_ways():
    text = plain(explain_text([WRONG, OWN]))
    assert text.count("question ") == 1
    assert text.index("towards the gold answer '22'  ln pi -4.50") < text.index(
        "towards the model's own answer '21'  ln pi -0.50"
    )
    assert "21, wrong" in text
    assert re.search(r"^gold +22$", text, re.MULTILINE)


def test_several_questions():
    assert plain(explain_text([RIGHT, replace(RIGHT, id="q2", question="5+5")])).count("question ") == 2


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"extracted": None, "correct": False, "answer": " dunno"}, "no answer found in ' dunno'"),
        ({"extracted": None, "correct": None, "answer": " a text"}, "' a text', not judged"),
        ({"correct": False}, "21, wrong"),
        ({"correct": None}, "21, not judged"),
    ],
)
def test_what_was_read(changes, line):
    one = replace(RIGHT, **changes)
    assert re.search(rf"^read +{re.escape(line)}$", plain(explain_text(one)), re.MULTILINE)
    assert line in Page(explain_html([one], None, "t")).text


def test_a_question_of_the_users_own_has_no_gold():
    one = replace(RIGHT, gold="", correct=None)
    assert role(one) == "model's own answer"
    assert not re.search("^gold", plain(explain_text(one)), re.MULTILINE)
    assert "<dt>gold" not in explain_html([one], None, "t")
    assert "<dt>gold" in explain_html([RIGHT], None, "t")


def test_choices_have_letters():
    assert "A. red  B. blue" in plain(explain_text(replace(RIGHT, choices=("red", "blue"))))


@pytest.mark.parametrize("units", [(), (UnitDrop("", "other", 0.0, 0.0),), (UnitDrop(" ", "space", 0.0, 1.0),)])
def test_cots_with_next_to_nothing(units):
    one = replace(RIGHT, units=units, cot="".join(unit.text for unit in units))
    assert ("the CoT is empty" in plain(explain_text(one))) == (not units)
    assert ("The CoT is empty" in explain_html([one], None, "t")) == (not units)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_on_the_terminal(text):
    out = plain(explain_text(hostile(text)), width=400)
    out.encode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\u2066]", out)
    assert f"question  {visible(text)}\n" in out  # markup stays text


# ---------------------------------------------------------------------------------------------------------------- page


def test_each_unit_is_a_span_with_colour_and_tooltip():
    page = Page(explain_html([RIGHT], None, "A title"))
    found = page.units()
    assert [a["title"] for _, a in found] == [
        "+1.50 nats, number",
        "+0.010 nats, operator",
        "-0.90 nats, number",
        "+0.30 nats, operator",
        "+2.00 nats, number",
        "0.000 nats, space",
        "-0.25 nats, filler",
    ]
    assert [a.get("style") for _, a in found] == [
        "background:rgb(var(--warm)/0.75)",
        None,
        "background:rgb(var(--cool)/0.45)",
        "background:rgb(var(--warm)/0.15)",
        "background:rgb(var(--warm)/1.00)",
        None,
        "background:rgb(var(--cool)/0.12)",
    ]
    # not colour alone
    assert [tag for tag, _ in found] == ["strong", "span", "span", "strong", "strong", "span", "span"]
    assert [a.get("class") for _, a in found] == [None, None, "hurts", None, None, None, None]
    assert "17②+ 4 =③ 21①↵\nso" in page.text


def test_the_page_stands_alone():
    html = explain_html([replace(RIGHT, id="q0"), WRONG, OWN], aggregate([RIGHT], 0), "A title")
    assert not {tag for tag, _ in Page(html).tags} & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|url\(|@import|src=", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert html.count("<article") == 2  # the wrong answer is explained twice in one


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_on_the_page(text):
    one = hostile(text)
    html = explain_html([one], aggregate([one], 0), text)
    html.encode()
    page, tame = Page(html), Page(explain_html([hostile("x")], aggregate([hostile("x")], 0), "x"))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in tame.tags]
    assert [set(a) for _, a in page.tags] == [set(a) for _, a in tame.tags]
    assert visible(text) in page.text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\u2066]", html)


def test_hostile_kinds_and_ids_of_a_file():
    one = replace(RIGHT, units=(UnitDrop("a", "<b>kind", 0.0, 1.0),))
    html = explain_html([one], aggregate([one], 0), "t")
    assert "<b>kind" not in html
    assert "&lt;b&gt;kind" in html


def test_tables_of_a_study():
    # numbers 1.5, -0.9, 2.0 in q1, and 1.0, -2.0 in q2; the axis goes from the lowest bound to the highest
    other = replace(RIGHT, id="q2", units=(UnitDrop("5", "number", 0.05, 1.0), UnitDrop("6", "number", 0.95, -2.0)))
    study = aggregate([RIGHT, other], 0)
    html = explain_html([], study, "t")
    row = html[html.index('<td class="">number: ') :]
    row = row[: row.index("</tr>")]
    assert "holds a digit" in row
    assert '<td class="number">5</td>' in row
    assert '<td class="number">56 %</td>' in row
    # (1.5 - 0.9 + 2 + 1 - 2) / 5; q2 twice; q1 twice: 2.6 / 3 = 0.8667
    assert '<td class="number null">0.32 [-0.50, 0.87]</td>' in row
    # axis -2 (the last tenth) to 2 (the sixth): zero in the middle, the mean at 2.32 / 4, the interval from 1.5 / 4
    bars = re.findall(r'class="(\w+)[ \w]*" style="left:([\d.]+)%(?:;width:([\d.]+)%)?', row)
    assert [(name, float(left), float(width or 0)) for name, left, width in bars] == [
        ("zero", 50.0, 0.0),
        ("fill", 50.0, 8.0),
        ("whisker", 37.5, 34.17),
    ]
    assert "0 to 10 %" in html
    assert "No CoT to show" in html


def test_a_study_of_nothing():
    assert "No CoT to show" in explain_html([], aggregate([], 0), "t")
    assert '<h2 id="h-study"' not in explain_html([RIGHT], None, "t")


def test_false_equations_of_the_cot_are_named():
    slipped = replace(WRONG, cot="17+4=21,21+3=25 <b>,1+1=3")
    assert re.search(r"^false +21\+3=25, 1\+1=3 *$", plain(explain_text(slipped)), re.MULTILINE)
    assert "<code>21+3=25, 1+1=3</code>" in explain_html([slipped], None, "t")
    assert "false " not in plain(explain_text(RIGHT))
