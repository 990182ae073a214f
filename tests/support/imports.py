"""The package's imports, read from its sources: what `tests/test_layout.py` judges."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "markovlm"


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Module -> file: `markovlm.health.levels`; a package is named without `__init__`."""
    found: dict[str, Path] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: Mapping[str, Path], *, types: bool) -> dict[str, set[str]]:
    """Module -> the modules that it imports anywhere, inside functions too; `types`: also those for type checkers alone.

    `from markovlm import register` imports the module `markovlm.register`, `from markovlm import __version__` the package itself.
    """
    found: dict[str, set[str]] = {}
    for module, path in known.items():
        mine = found[module] = set[str]()
        for node, checked_only in _imports(path):
            if checked_only and not types:
                continue
            if isinstance(node, ast.Import):
                mine |= {alias.name for alias in node.names} & set(known)
            elif node.module is not None:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                mine |= full & set(known)
                if full - set(known) and node.module in known:
                    mine.add(node.module)
        mine.discard(module)
    return found


@cache
def _imports(path: Path) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import statement of a file, and whether it is for type checkers alone."""
    return list(_below(ast.parse(path.read_text(encoding="utf-8")), False))


def _below(tree: ast.AST, checked_only: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, checked_only
        elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):  # no expression holds a statement
            yield from _below(node, checked_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)))


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches all others of its group (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def missing(files: Iterable[Path], known: Mapping[str, Path]) -> list[str]:
    """`FILE: MODULE.NAME` of what `files` import from the package and is not there: moved, renamed or deleted. Nothing is imported."""
    found: list[str] = []
    for file in files:
        for node, _ in _imports(file):
            module = node.module or "" if isinstance(node, ast.ImportFrom) and node.level == 0 else ""
            if not isinstance(node, ast.ImportFrom) or module.partition(".")[0] != PACKAGE.name:
                continue
            wanted = [alias.name for alias in node.names]
            there = _names(known[module]) if module in known else set[str]()
            lazy = "__getattr__" in there  # such as the package itself: its names are looked up when used
            gone = [name for name in wanted if not lazy and name not in there and f"{module}.{name}" not in known]
            found += [f"{file.name}: {module}.{name}" for name in gone]
    return found


@cache
def _names(path: Path) -> set[str]:
    """What a module defines or imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return found
