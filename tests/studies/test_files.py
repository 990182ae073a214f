"""Records of studies: what is written is what is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from markovlm.studies.files import KIND, check_result, read_result, read_study
from markovlm.studies.records import Leak, Own
from markovlm.studies.tables import long_tables, tables_of
from report import loadbearing_samples as samples
from support.golden import FOLDER

MADE: dict[str, Callable[[], dict[str, Any]]] = {kind: getattr(samples, kind) for kind in KIND}


@pytest.mark.parametrize("kind", KIND)
def test_a_result_is_written_only_as_its_model_declares_it(kind: str) -> None:
    check_result(MADE[kind]())
    with pytest.raises(ValueError, match=f"{KIND[kind].__name__} does not declare horoscope"):
        check_result(MADE[kind]() | {"horoscope": 1})
    with pytest.raises(ValueError, match="not a count"):
        check_result(MADE[kind]() | {"n": -1})
    check_result({"kind": "of a plug-in", "anything": 1})


@pytest.mark.parametrize("kind", KIND)
def test_every_kind_has_tables_to_read_and_full_ones(kind: str) -> None:
    problems: list[str] = []
    study = read_result(MADE[kind](), problems)
    assert study is not None
    assert problems == []
    assert study.kind == kind
    assert all(len(row) == len(table.columns) for table in tables_of(study) for row in table.rows)
    assert tables_of(study)
    assert all(len(row) == len(table.columns) for table in long_tables([("run", study)]) for row in table.rows)


def test_a_study_of_a_users_own_is_read_with_doubt() -> None:
    odd = [
        {
            "a\x1b": "x" * 9_000,
            "b": {"mean": "no", "ci95": 3},
            "c": float("inf"),
            "d": [1],
            "e": {"mean": 0.5, "ci95": [0.6, 0.4]},
        },
        7,
    ]
    problems: list[str] = []
    study = read_result(samples.own(rows=odd), problems)
    assert isinstance(study, Own)
    (row,) = study.rows
    assert [*row] == ["a\ufffd", "b", "c", "d", "e"]
    assert len(row["a\ufffd"]) < 400
    assert (row["b"].mean, row["c"], row["d"]) == (None, None, None)
    assert (row["e"].mean, row["e"].ci95) == (0.5, (None, None))
    (table,) = tables_of(study)
    assert [cell.text for cell in table.rows[0]][-1] == "0.50 [—]"
    assert [[cell.value for cell in row[-5:]] for row in long_tables([("run", read_result(samples.own(), []))])[0].rows][1] == [
        "accuracy", 0.9, pytest.approx(0.85), pytest.approx(0.95), None,
    ]  # fmt: skip


def _whole(value: Any) -> Any:
    """A golden value less the entries that say how many were left out."""
    if isinstance(value, Mapping):
        return {key: _whole(one) for key, one in value.items()}
    return [_whole(one) for one in value if not str(one).endswith(" in all>")] if isinstance(value, list) else value


def test_what_the_commands_print_is_what_the_models_declare() -> None:
    found = json.loads((FOLDER / "json" / "loadbearing.json").read_text(encoding="utf-8"))
    results = [_whole(result) for result in found.values() if isinstance(result, Mapping)]
    assert len(results) > 5
    for result in results:
        check_result(result)


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Without the keys that came later."""
    path, problems = tmp_path / "leak.json", list[str]()
    path.write_text(json.dumps({"kind": "leak", "checkpoint": "base", "leaks": {"mean": 0.5}, "gone": 1}))
    study = read_study(path, problems)
    assert isinstance(study, Leak)
    assert problems == []
    assert (study.path, study.where, study.leaks.mean, study.leaks.sign, study.position.mean) == (path, "base", 0.5, None, None)
