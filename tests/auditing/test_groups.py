"""Two logs of one model are two groups; what is told apart, joined or cut differently is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from markovlm.auditing.groups import name_groups, parse_groups
from markovlm.auditing.plan import gather
from markovlm.auditing.rows import AuditRow, CotSource
from markovlm.cli.main import main
from markovlm.errors import UserError


def source(group: str = "", shards: bool = True, **facts: str) -> CotSource:
    return CotSource("inspect", [AuditRow("Q", "c", "1", group=group)], facts=facts, shards=shards)


def names(files: list[str], sources: list[CotSource], **given: str) -> tuple[list[str], list[str]]:
    found, notes = name_groups(
        [Path(f) for f in files], sources, {Path(f): n for f, n in (pair.split("=")[::-1] for pair in given.values())}
    )
    return [groups[0] for groups in found], notes


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([{"task": "sums", "style": "brief"}, {"task": "sums", "style": "cot"}], ["m (style=brief)", "m (style=cot)"]),
        ([{"solver": "generate", "t": "1"}, {"solver": "cot+generate", "t": "1"}], ["m (generate)", "m (cot+generate)"]),
        ([{"task": "a"}, {"task": "a", "hint": "yes"}], ["m (no hint)", "m (hint=yes)"]),
        ([{"task": "a"}, {"task": "a"}], ["m (x)", "m (y)"]),  # nothing but the names of the files
    ],
)
def test_logs_of_one_model_are_told_apart_by_what_differs(facts: list[dict[str, str]], expected: list[str]) -> None:
    found, notes = names(["x.eval", "y.eval"], [source("m", shards=False, **one) for one in facts])
    assert found == expected
    assert "distinguished as" in notes[0]
    assert "--group" in notes[0]


def test_it_takes_no_more_facts_than_are_needed() -> None:
    logs = [source("m", shards=False, a=a, b=b, c="same") for a, b in (("1", "1"), ("1", "2"), ("2", "1"))]
    assert names(["x", "y", "z"], logs)[0] == ["m (a=1, b=1)", "m (a=1, b=2)", "m (a=2, b=1)"]


def test_shards_of_one_group_are_one_and_files_without_groups_are_one_each() -> None:
    found, notes = names(["x.jsonl", "y.jsonl"], [source("base"), source("base")])
    assert found == ["base", "base"]
    assert "so they form one group; --group NAME=FILE" in notes[0]
    assert names(["a/x.jsonl", "b/x.jsonl"], [source(), source()])[0] == ["a/x", "b/x"]
    assert names(["x.jsonl"], [source()])[0] == ["all"]


def test_the_user_names_and_joins_groups() -> None:
    logs = [source("m", shards=False, style=style) for style in ("brief", "brief2", "cot")]
    assert names(["x", "y", "z"], logs, one="short=x", two="short=y")[0] == ["short", "short", "m"]
    several = CotSource("rows", [AuditRow("Q", "c", "1", group=g) for g in "ab"])
    assert name_groups([Path("x")], [several], {Path("x"): "n"})[0] == [["n / a", "n / b"]]
    assert parse_groups(["n=a=b.eval"]) == {Path("a=b.eval"): "n"}
    for wrong in ("n", "=x", "n="):
        with pytest.raises(UserError, match="must be NAME=FILE"):
            parse_groups([wrong])
    with pytest.raises(UserError, match="given two names"):
        parse_groups(["a=x", "b=x"])


def test_groups_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": "1+2+3", "cot": "6", "answer": "6", "group": "same"}))
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    assert main(["audit", *files, "--group", f"brief={files[0]}", "--reader", "embedded", "--dry-run", "--json"]) == 0
    assert [g["group"] for g in json.loads(capsys.readouterr().out)["groups"]] == ["brief", "same"]
    assert (
        main(
            [
                "audit",
                "--group",
                f"brief={files[0]}",
                "--group",
                f"long={files[1]}",
                "--reader",
                "embedded",
                "--dry-run",
                "--json",
            ]
        )
        == 0
    )
    assert [g["group"] for g in json.loads(capsys.readouterr().out)["groups"]] == ["brief", "long"]
    assert main(["audit", *files, "--columns", "cot=nope", "--reader", "embedded"]) == 2
    assert "--columns cot=nope: no row has this column" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- answers


def gathered(rows: list[AuditRow], task: str | None = None) -> Any:
    return gather([Path("x.jsonl")], [CotSource("rows", rows)], task, None)


def letter_rows(*places: int) -> list[AuditRow]:
    return [AuditRow(f"Q{i}", "c", str(place), ("iron", "wood", "glass"), place=place) for i, place in enumerate(places)]


def test_a_gold_answer_that_is_a_place_is_a_letter() -> None:
    """Counted from 0, unless none is 0 and one is the number of choices."""
    for places, letters, base in (((0, 2), "AC", 0), ((1, 3), "AC", 1), ((1, 2), "BC", 0)):
        material = gathered(letter_rows(*places))
        assert material.answer_type == "letter"
        assert [cot.example.answer for cot in material.cots] == list(letters)
        assert any(f"counted from {base}" in note for note in material.notes)


def test_the_same_question_with_its_choices_in_another_order_is_the_same() -> None:
    rows = [
        AuditRow("Q", "c", "A", ("iron", "wood")),
        AuditRow("Q", "d", "B", ("wood", "iron")),
        AuditRow("Q", "e", "A", ("wood", "iron")),
    ]
    one, other, third = gathered(rows).cots
    assert one.example.id == other.example.id != third.example.id


def test_every_target_counts_as_right() -> None:
    from markovlm.evaluation.answering import read_answer
    from markovlm.tasks import get_task

    material = gathered([AuditRow("Q", "c", "22", also=("twenty-two", "23"))])
    example = material.cots[0].example
    assert (example.answer, example.also) == ("22", ("23",))  # the first two are one number
    task = get_task("custom", {"answer_type": "number"})
    assert [read_answer(task, example, f" {n}", task.extractors[0])[1] for n in (22, 23, 24)] == [True, True, False]


def test_groups_that_were_cut_differently_are_warned_about() -> None:
    rows = [AuditRow(f"Q{i}", "c", "1", group="cut", final="#### 1") for i in range(4)]
    assert not any("WARNING" in note for note in gathered(rows).notes)
    rows += [AuditRow(f"Q{i}", "c", "1", group="whole") for i in range(3)]
    [warning] = [note for note in gathered(rows).notes if note.startswith("WARNING")]
    assert "in 4 of 4 CoTs of cut, but in 0 of 3 of whole" in warning


def test_one_decimal_gold_answer_changes_nothing() -> None:
    """The default extractor reads decimals too: no row is read otherwise because of another one's gold answer."""
    mixed, whole = (gathered([AuditRow("Q", "c", gold), AuditRow("R", "c", "3")]) for gold in ("2.5", "2"))
    assert (mixed.task, mixed.task_options, mixed.answer_type) == (whole.task, whole.task_options, whole.answer_type)
    assert mixed.notes == whole.notes
