"""Reading files: what is one bad row, what is a broken file, and that each is told by its line."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.errors import UserError
from markovlm.tasks import files
from markovlm.tasks.files import read_rows
from markovlm.tasks.rows import BadRow, RowError, answer_letter, plain_text, text_list, without_labels


def read(tmp_path, name, content, headerless=()):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(path, headerless))


def test_an_array_knows_the_line_of_each_element(tmp_path):
    rows = read(tmp_path, "a.json", '\n[\n {"q": 1},\n\n {"q":\n 2}\n, "x", {"q": 3}]\n')
    assert [row.where.rpartition(":")[2] for row in rows] == ["3", "5", "7", "7"]
    assert [row.index for row in rows if not isinstance(row, BadRow)] == [0, 1, 3]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"q": 1}\n\n{"q": 2}'),
        ("a.ndjson", '{"q": 1}\r\n{"q": 2}\r\n'),
        ("a.json", '{"q": 1}\n{"q": 2}\n'),  # JSON lines under another name, as in AQuA
        ("a.json", '[{"q": 1}, {"q": 2}]'),
        ("a.json", '{"version": "1", "data": [{"q": 1}, {"q": 2}]}'),
        ("a.json", '\ufeff[{"q": 1}, {"q": 2}]'),
        ("a.csv", "q\n1\n\n2\n"),
        ("a.tsv", "q\tr\n1\t\n2\t\n"),
    ],
)
def test_the_same_rows_in_every_container(tmp_path, name, content):
    assert [str(row.get("Q")) for row in read(tmp_path, name, content)] == ["1", "2"]


def test_a_csv_row_is_told_by_its_first_line(tmp_path):
    rows = read(tmp_path, "a.csv", 'q,r\n"two\nlines",1\n"short"\nlast,2\n')
    assert [row.where.rpartition(":")[2] for row in rows] == ["2", "4", "5"]
    assert isinstance(rows[1], BadRow)
    assert rows[1].reason == "1 cells, expected 2"


def test_a_headerless_row_that_talks_about_questions_is_no_header(tmp_path):
    rows = read(tmp_path, "a.csv", "Question,question,b,c,d,A\n", ("question", "a", "b", "c", "d", "answer"))
    assert rows[0].get("answer") == "A"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"q": 1}, {"q": \n nope}]', r"a\.json:1: not valid JSON: .*repair the file"),
        ("a.json", b'[{"q": 1}, ', r"a\.json:1: not valid JSON"),
        ("a.jsonl", b'{"q": 1}\n{"q": "\xff"}', r"a\.jsonl:2: not UTF-8 text \(byte 16\)"),
        ("a.parquet", b"PAR1", r"a\.parquet: cannot be read as Parquet"),
        ("a.xlsx", b"PK", r"unknown kind of data file; expected one of \.json"),
        ("a.csv", b'q\n"' + b"x" * 200_000 + b'"', r"a\.csv:2: not valid CSV: field larger"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, name, content)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.json: cannot be read: No such file"):
        list(read_rows(tmp_path / "a.json"))


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 10_000, '{"a"', "null", '"text"'])
def test_a_hostile_line_is_one_bad_row(tmp_path, line):
    rows = read(tmp_path, "a.jsonl", f'{line}\n{{"q": 1}}')
    assert isinstance(rows[0], BadRow)
    assert rows[1].get("q") == 1


def test_a_file_that_fills_the_memory_is_one_line(tmp_path, monkeypatch):
    import polars

    monkeypatch.setattr("markovlm.content._ALWAYS", 10_000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"q": 1}\n' + bytes(5_000_000)))
    with pytest.raises(UserError, match=r"a\.jsonl\.gz: cannot be read: unpacks to more than"):
        list(read_rows(tmp_path / "a.jsonl.gz"))
    monkeypatch.setattr(files, "_MOST_ROWS", 10)
    polars.DataFrame({"q": ["1"] * 11}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="11 rows, but at most 10 are read"):
        list(read_rows(tmp_path / "a.parquet"))
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="a named pipe, not a file"):
        list(read_rows(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("value", [None, True, [], {}, "", "  ", "\ud800"])
def test_what_is_not_text(value):
    with pytest.raises(RowError):
        plain_text(value, "field")


@pytest.mark.parametrize(
    ("value", "labels", "letter"),
    [
        ("B", "ABCD", "B"), (" c ", "ABCD", "C"), ("(d)", "ABCD", "D"), (2, "ABCD", "C"), ("2", "ABCD", "C"),
        ("2", "1234", "B"), ("4", "1234", "D"), (1, "1234", "A"), ("0", "ABCD", "A"), ("1.0", "ABCD", "B"), ("A", "1234", "A"),
    ],
)  # fmt: skip
def test_answer_keys(value, labels, letter):
    assert answer_letter(value, labels) == letter


@pytest.mark.parametrize(("value", "labels"), [("E", "ABCD"), ("5", "1234"), ("4", "ABCD"), (-1, "ABCD"), ("AB", "ABCD")])
def test_answer_keys_that_fit_no_choice(value, labels):
    with pytest.raises(RowError, match="is not one of"):
        answer_letter(value, labels)


@pytest.mark.parametrize(
    ("options", "bare"),
    [
        (["A)1", "B) 2"], ("1", "2")),
        (["(a) 1", "(b) 2"], ("1", "2")),
        (["A. Smith", "Jones"], ("A. Smith", "Jones")),
        (["A)A)59", "B)60"], ("59", "60")),
        (["a ) a ) 2", "b ) b"], ("2", "b")),
        (["B) x", "A) y"], ("B) x", "A) y")),
    ],
)
def test_labels(options, bare):
    assert without_labels(options) == bare


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1, max_size=6))
def test_lists_written_as_text_come_back(items):
    stripped = tuple(item.strip() for item in items)
    assert text_list(repr(items), "options") == stripped
    assert text_list(json.dumps(items), "options") == stripped


@pytest.mark.parametrize("text", ["[", "[1 +]", "['a'", "[" + "'a'," * 30_000 + "]", "__import__('os')", "['\\N{nope}']"])
def test_lists_that_are_none(text):
    with pytest.raises(RowError):
        text_list(text, "options")
