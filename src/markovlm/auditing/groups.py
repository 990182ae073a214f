"""The groups whose CoTs are compared: those that rows name, names given by the user, and what distinguishes two logs.

Two logs of one model are two conditions, not one group: they are distinguished by the arguments of their tasks, their solvers, or their
names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from markovlm.auditing.rows import CotSource
from markovlm.errors import UserError

ALL = "all"  # the group of rows that name none
_LONGEST = 40  # characters of a fact that tells two logs apart


def parse_groups(texts: Sequence[str]) -> dict[Path, str]:
    """`NAME=FILE` -> file to name. Raises UserError if one is not such a pair, or a file gets two names."""
    found: dict[Path, str] = {}
    for text in texts:
        name, equals, file = (part.strip() for part in text.partition("="))
        if not equals or not name or not file:
            raise UserError(f"--group {text}: must be NAME=FILE")
        path = Path(file).expanduser()
        if found.get(path, name) != name:
            raise UserError(f"--group: {file} is given two names, {found[path]} and {name}")
        found[path] = name
    return found


def name_groups(
    files: Sequence[Path], sources: Sequence[CotSource], given: Mapping[Path, str]
) -> tuple[list[list[str]], list[str]]:
    """For each file the group of each of its rows, and notes about what was separated and what was joined."""
    names = _file_names(files)
    owners: dict[str, list[int]] = {}  # group that rows name -> files whose rows name it, those named by the user left out
    for number, (file, source) in enumerate(zip(files, sources, strict=True)):
        for group in dict.fromkeys(row.group for row in source.rows if row.group and file not in given):
            owners.setdefault(group, []).append(number)
    notes: list[str] = []
    renamed: dict[tuple[int, str], str] = {}
    for group, numbers in owners.items():
        if len(numbers) < 2:
            continue
        who = ", ".join(names[number] for number in numbers)
        if all(sources[number].shards for number in numbers):
            notes.append(f"{who} all name the group {group}, so they form one group; --group NAME=FILE separates them")
            continue
        marks = _differences([sources[number].facts for number in numbers], [names[number] for number in numbers])
        renamed |= {(number, group): f"{group} ({mark})" for number, mark in zip(numbers, marks, strict=True)}
        notes.append(f"{who} all belong to {group}: distinguished as {'; '.join(marks)}; --group NAME=FILE renames or joins them")
    found = []
    for number, (file, source) in enumerate(zip(files, sources, strict=True)):
        own = {row.group for row in source.rows}
        alone = names[number] if len(files) > 1 else ALL
        if file in given:
            found.append(
                [given[file] if len(own) < 2 else f"{given[file]} / {row.group or names[number]}" for row in source.rows]
            )
        else:
            found.append([renamed.get((number, row.group), row.group) or alone for row in source.rows])
    return found, notes


def _differences(facts: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    """What tells them apart, in as few facts as it takes; the files' names where facts don't."""

    def kinds(keys: Sequence[str]) -> int:
        return len({tuple(own.get(key) for key in keys) for own in facts})

    known = list(dict.fromkeys(key for own in facts for key in own))
    chosen: list[str] = []
    while kinds(chosen) < len(facts):
        best = max(known, key=lambda key: kinds([*chosen, key]), default=None)
        if best is None or kinds([*chosen, best]) == kinds(chosen):
            return list(names)
        chosen.append(best)
    marks = [", ".join(_said(key, own.get(key)) for key in chosen) for own in facts]
    return marks if len(set(marks)) == len(marks) else list(names)


def _said(key: str, value: str | None) -> str:
    """`brief` for a task or solver, else `style=brief`."""
    if value is None:
        return f"no {key}"
    short = " ".join(value.split())[:_LONGEST]
    return short if key in ("task", "solver") else f"{key}={short}"


def _file_names(files: Sequence[Path]) -> list[str]:
    """Names without suffixes, with as many folders in front as it takes to tell them apart."""
    resolved = [file.expanduser().resolve() for file in files]
    stems = [re.split(r"\.(?:json|parquet|eval|csv)", path.name)[0] for path in resolved]
    for folders in range(max((len(path.parts) for path in resolved), default=0)):
        names = [
            "/".join((*path.parts[:-1][-folders:], stem)) if folders else stem for path, stem in zip(resolved, stems, strict=True)
        ]
        if len(set(names)) == len(names):
            return names
    return [path.name for path in resolved]
