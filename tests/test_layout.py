"""Packages and modules depend on each other in one direction only, as CONTRIBUTING.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.imports import PACKAGE, circles, imports, missing, modules

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def order_of(text: str) -> list[str]:
    """Names of the packages and top-level modules in the table of CONTRIBUTING.md, top to bottom, left to right."""
    table = text.partition("## The map")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", table, flags=re.MULTILINE)
    return [name.removesuffix("/").removesuffix(".py") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def upward(graph: dict[str, set[str]], order: list[str]) -> list[str]:
    """Imports of something that stands higher in `order`."""
    place = {name: number for number, name in enumerate(order)}

    def top(module: str) -> str:
        return module.split(".")[1] if "." in module else "__init__"

    return [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in sorted(others)
        if place[top(other)] < place[top(module)]
    ]


def test_the_table_has_every_package_and_module_once() -> None:
    order = order_of(CONTRIBUTING.read_text(encoding="utf-8"))
    there = [path.stem for path in PACKAGE.glob("*.py")]
    there += [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file() and path.name != "assets"]
    assert sorted(order) == sorted(there)


def test_nothing_imports_what_stands_above_it() -> None:
    """Imports inside functions count, those for type checkers do not."""
    assert upward(imports(modules(), types=False), order_of(CONTRIBUTING.read_text(encoding="utf-8"))) == []


def test_modules_import_each_other_in_no_circle() -> None:
    """Neither inside functions nor for type checkers."""
    assert circles(imports(modules(), types=True)) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """`high` above `low`; the module `low.b` breaks every rule."""
    root = tmp_path / "pack"
    for name, text in {
        "__init__": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.low.b import B\nversion = 1",
        "high/__init__": "",
        "high/a": "from pack.low.b import B",
        "low/__init__": "",
        "low/b": "def f():\n    from pack import version\n    from pack.high import a",
    }.items():
        path = (root / name).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_broken_rule_is_found(package: Path) -> None:
    known = modules(package)
    assert upward(imports(known, types=False), ["__init__", "high", "low"]) == [
        "pack.low.b imports pack",
        "pack.low.b imports pack.high.a",
    ]
    assert circles(imports(known, types=True)) == [["pack", "pack.high.a", "pack.low.b"]]


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by their names; the second could not be collected."""
    names = [path.name for path in CONTRIBUTING.parent.joinpath("tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_what_is_imported_from_the_package_is_there() -> None:
    """In benchmarks and scripts too, which no other test imports."""
    root = CONTRIBUTING.parent
    files = [
        path
        for folder in ("src", "tests", "benchmarks", "scripts", "examples", "studies")
        for path in root.joinpath(folder).rglob("*.py")
    ]
    assert len(files) > 500
    assert missing(files, modules()) == []


def test_a_name_that_has_moved_is_found(tmp_path: Path) -> None:
    file = tmp_path / "old.py"
    file.write_text(
        "def f():\n    from markovlm.errors import UserError, Gone\n    from markovlm.nowhere import there\n    from markovlm import train\n"
    )
    assert missing([file], modules()) == ["old.py: markovlm.errors.Gone", "old.py: markovlm.nowhere.there"]
