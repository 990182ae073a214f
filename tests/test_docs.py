"""The documents say what exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
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


def test_the_map_in_contributing_names_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = [p.name for p in (ROOT / "src" / "markovlm").iterdir() if (p / "__init__.py").is_file() and p.name != "assets"]
    assert [room for room in rooms if f"`{room}/`" not in text] == []


def test_no_arrow_runs_up() -> None:
    """The order of the table in CONTRIBUTING.md, top to bottom, against every import (those for types alone left out)."""
    above_below = """
        cli demo sweeps integrations api terminal report auditing analysis training
        evaluation runs logs health chains rewards objectives rollouts models tasks config
    """
    order = above_below.split()
    above: list[str] = []
    for path in (ROOT / "src" / "markovlm").rglob("*.py"):
        here = path.relative_to(ROOT / "src" / "markovlm").parts[0].removesuffix(".py")
        if here not in order:
            continue
        for node in _runtime_imports(ast.parse(path.read_text(encoding="utf-8"))):
            parts = (node.module or "").split(".")
            if parts[0] == "markovlm" and len(parts) > 1 and parts[1] in order and order.index(parts[1]) < order.index(here):
                above.append(f"{path.name}: {node.module}")
    assert above == []


def _runtime_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            yield node
        yield from _runtime_imports(node)


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")]:
        targets = [t for t in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")) if not t.startswith("http")]
        broken += [f"{page.name}: {target}" for target in targets if not (page.parent / target).exists()]
    assert not broken


def test_the_run_directory_page_names_every_metric() -> None:
    from markovlm.training.metrics import metric_row

    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    source = Path(metric_row.__code__.co_filename).read_text(encoding="utf-8")
    names = set(re.findall(r'^\s+"([a-z_]+)": ', source, flags=re.MULTILINE)) - set(re.findall(r'"([a-z_]+)": s\.', source))
    assert len(names) > 20
    assert sorted(name for name in names if f"`{name}`" not in text) == []
