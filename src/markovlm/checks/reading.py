"""Settings of a file as one flat mapping: YAML or JSON, a shell script with overrides or flags, a Python file with a `GRPOConfig(...)`.

Nothing is run: of scripts, only literal values and variables set to one are known.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markovlm.config.files import load_yaml
from markovlm.config.keys import flatten
from markovlm.errors import UserError
from markovlm.tasks.files import read_text

_NAME = re.compile(r"[A-Za-z_]\w*")
_OVERRIDE = re.compile(r"\+{0,2}([A-Za-z_]\w*(?:[.@/][\w-]+)+)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^{}]*))?\}|(\w+))")
_ARITHMETIC = re.compile(r"\$\(\(([\s\w$+*/()-]+)\)\)")
_DECLARING = (["export"], ["declare"], ["local"], ["readonly"], ["then"], ["else"], ["do"])
_BETWEEN = ";&|"  # commands
_LONGEST_QUOTE = 100  # lines
_MOST = 4 << 20  # characters of a script
_TRAINERS = re.compile(r"(?:GRPO|RLOO)Config")


@dataclass(frozen=True, slots=True)
class GivenSettings:
    """Dotted names -> values, and names whose value is only known at run time."""

    values: Mapping[str, Any]
    unread: tuple[str, ...] = ()
    nested: Mapping[str, Any] = field(default_factory=dict)  # as the file has them; empty for scripts


def read_settings(path: Path) -> GivenSettings:
    """The settings of a file. Raises UserError for a file that cannot be read, or has no settings."""
    suffix = path.suffix.lower()
    if suffix in (".sh", ".bash", ".slurm", ".sbatch"):
        found = _of_shell(_script(path))
    elif suffix == ".py":
        found = _of_python(_script(path), path)
    else:  # JSON is YAML
        nested = load_yaml(path)
        found = GivenSettings({name: _plain(value) for name, value in flatten(_unwrapped(nested)).items()}, nested=nested)
    if not found.values:
        raise UserError(f"{path}: contains no settings; give a YAML or JSON configuration, a shell script, or a Python file")
    return found


def _script(path: Path) -> str:
    text = read_text(path)
    if len(text) > _MOST:
        raise UserError(f"{path}: {len(text):,} characters, too long for a script")
    return text


def _unwrapped(nested: Mapping[str, Any]) -> dict[str, Any]:
    """W&B writes `{"beta": {"desc": null, "value": 0.04}}`."""
    return {
        str(name): value["value"]
        if isinstance(value, Mapping) and "value" in value and set(value) <= {"value", "desc"}
        else value
        for name, value in nested.items()
    }


def _plain(value: Any) -> Any:
    """A text that is a number or a truth value, as one: YAML reads 1e-6 as a text."""
    if not isinstance(value, str):
        return value
    text = value.strip().strip("'\"")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None, "none": None}.get(text.lower(), text)


def _of_shell(text: str) -> GivenSettings:
    """`a.b=1` (Hydra's overrides), `--flag 1`, `--flag=1`, `--flag`; `NAME=1` and `${NAME:-1}` are put in.

    A variable that is set to two values, as in an `if`, is not known.
    """
    joined = re.sub(r"\\[ \t]*\r?\n", " ", text)
    lines = _lines(_ARITHMETIC.sub(lambda match: re.sub(r"\s+", "", match[0]), joined))
    variables: dict[str, str | None] = {}
    for line in lines:
        for word in line[line[:1] in _DECLARING :]:
            name, equals, raw = word.partition("=")
            if not equals or not _NAME.fullmatch(name):
                break  # assignments stand at the beginning of a line
            known = _expanded(raw, variables)
            variables[name] = known if variables.get(name, known) == known else None
    values: dict[str, Any] = {}
    unread: list[str] = []

    def keep(name: str, raw: str) -> None:
        known = _expanded(raw, variables)
        if known is None:
            values.pop(name, None)
            unread.append(name)
        else:
            values[name] = _plain(known)

    for line in lines:
        for number, word in enumerate(line):
            name, equals, raw = word.partition("=")
            after = line[number + 1] if number + 1 < len(line) else "--"
            flag = name[2:].replace("-", "_")
            if override := _OVERRIDE.fullmatch(word):
                keep(override[1], override[2])
            elif not word.startswith("--") or not _NAME.fullmatch(flag):
                continue
            elif equals:
                keep(flag, raw)
            elif after.startswith("--"):
                values[flag.removeprefix("no_")] = not flag.startswith("no_")
            else:
                keep(flag, after)
    return GivenSettings(values, tuple(dict.fromkeys(name for name in unread if name not in values)))


def _words(text: str) -> shlex.shlex:
    split = shlex.shlex(text, posix=True, punctuation_chars=_BETWEEN)
    split.whitespace_split = True
    return split


def _lines(text: str) -> list[list[str]]:
    """Words of each command. What stands in quotes over several words (settings kept in a variable) is words too."""
    found: list[list[str]] = []
    open_lines: list[str] = []
    for line in text.split("\n"):
        open_lines = [*open_lines, line][-_LONGEST_QUOTE:]
        try:
            words = list(_words("\n".join(open_lines)))
        except ValueError:  # a quote is still open
            continue
        open_lines = []
        commands: list[list[str]] = [[]]
        for word in words:
            if set(word) <= set(_BETWEEN):
                commands.append([])
            else:
                commands[-1].append(word)
        found += commands
        found += [
            word.partition("=")[2].split() for word in words if _NAME.fullmatch(word.partition("=")[0]) and len(word.split()) > 1
        ]
    return found


def _expanded(text: str, variables: Mapping[str, str | None]) -> str | None:
    """With variables and sums put in; None if one is not known, or a command would have to be run."""
    missing = False

    def put(match: re.Match[str]) -> str:
        nonlocal missing
        name = match[1] or match[3]
        known = variables[name] if name in variables else match[2]
        missing = missing or known is None
        return known or ""

    def computed(match: re.Match[str]) -> str:
        nonlocal missing
        inner = re.sub(r"\$?\b([A-Za-z_]\w*)", lambda found: variables.get(found[1]) or "?", match[1])
        value = None if "?" in inner else _number(inner.replace("/", "//"))
        missing = missing or value is None
        return str(value)

    found = _VARIABLE.sub(put, _ARITHMETIC.sub(computed, text))
    return None if missing or "$" in found or "`" in found else found


def _number(text: str) -> Any:
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, {})
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _of_python(text: str, path: Path) -> GivenSettings:
    """Keyword arguments of the last call of a GRPOConfig or RLOOConfig."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path}: not valid Python: {getattr(error, 'msg', None) or error}") from None
    known: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                known[node.targets[0].id] = _value(node.value, known)
            except ValueError:
                known.pop(node.targets[0].id, None)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _TRAINERS.fullmatch(_called(node))]
    if not calls:
        raise UserError(f"{path}: contains no GRPOConfig(...) or RLOOConfig(...)")
    values: dict[str, Any] = {}
    unread: list[str] = []
    for keyword in calls[-1].keywords:
        if keyword.arg is None:
            unread.append("**")
            continue
        try:
            values[keyword.arg] = _value(keyword.value, known)
        except ValueError:
            unread.append(keyword.arg)
    flat = {name: _plain(value) for name, value in flatten(values).items()}
    return GivenSettings(flat, tuple(unread))


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """A literal, a name that is known, or a sum of such numbers. Raises ValueError for anything else."""
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, known), _value(node.right, known)
        numbers = all(isinstance(side, (int, float)) and abs(side) < 1e12 for side in (left, right))
        if numbers and isinstance(node.op, ast.Add):
            return left + right
        if numbers and isinstance(node.op, ast.Sub):
            return left - right
        if numbers and isinstance(node.op, ast.Mult):
            return left * right
        if numbers and right and isinstance(node.op, (ast.Div, ast.FloorDiv)):
            return left / right if isinstance(node.op, ast.Div) else left // right
        raise ValueError("not a value")
    return ast.literal_eval(node)
