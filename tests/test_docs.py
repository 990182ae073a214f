"""The documents say what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.scripts import load

ROOT = Path(__file__).parents[1]


def test_the_lines_of_the_mutants_stand_where_they_look_for_them() -> None:
    mutants = load("mutants")
    assert mutants.misplaced() == []
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS) >= 50


def test_the_configuration_page_is_up_to_date() -> None:
    module = load("write_configuration_doc")
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == module.render()


def test_the_commands_page_is_up_to_date() -> None:
    module = load("write_commands_doc")
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == module.render()


def test_every_page_is_in_the_sites_navigation_and_the_api_page_has_every_name() -> None:
    import markovlm

    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}" not in site] == []
    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = {"RunConfig": "markovlm.config"}  # documented field by field in configuration.md
    places = {name: place.partition(":") for name, place in markovlm._PLACES.items()}
    missing = [
        n
        for n, (module, _, other) in places.items()
        if f"markovlm.{module}.{other or n}" not in api and f"markovlm.{module}\n" not in api
    ]
    assert sorted(set(missing) - set(named)) == ["Options"]  # pydantic's BaseModel with our settings: explained in plugins.md


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")]:
        targets = [t for t in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")) if not t.startswith("http")]
        broken += [f"{page.name}: {target}" for target in targets if not (page.parent / target).exists()]
    assert not broken


def test_every_name_of_the_equations_page_exists() -> None:
    """`FILE: NAME, NAME` under src/markovlm: files and top-level names or methods, a method also without its class behind another of it."""
    wrong: list[str] = []
    for path, names in re.findall(r"`([\w/]+\.py): ([^`]+)`", (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")):
        file = ROOT / "src" / "markovlm" / path
        known, owner = names_in(file) if file.exists() else set(), ""
        for name in map(str.strip, names.split(",")):
            if name in known:
                owner = name.partition(".")[0]
            elif f"{owner}.{name}" not in known:
                wrong.append(f"{path}: {name}")
    assert wrong == []


def names_in(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_the_run_directory_page_names_every_metric() -> None:
    from markovlm.training.metrics import metric_row

    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    source = Path(metric_row.__code__.co_filename).read_text(encoding="utf-8")
    names = set(re.findall(r'^\s+"([a-z_]+)": ', source, flags=re.MULTILINE)) - set(re.findall(r'"([a-z_]+)": s\.', source))
    assert len(names) > 20
    assert sorted(name for name in names if f"`{name}`" not in text) == []
