"""RUN/loadbearing/*.json: checked by its model before it is written, and read without trust: what is wrong becomes a problem, never an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markovlm.content import read_content
from markovlm.studies.chains import Chains
from markovlm.studies.fields import Problems
from markovlm.studies.records import BASE, Bypass, Explain, Intervention, Leak, Own, Perturb, Resample, Study, Transfer

FOLDER = "loadbearing"
MAX_BYTES = 8_000_000  # of one file
MAX_FILES = 100
KIND: dict[str, type[Study]] = {
    "perturb": Perturb,
    "transfer": Transfer,
    "explain": Explain,
    "bypass": Bypass,
    "leak": Leak,
    "chains": Chains,
    "intervention": Intervention,
    "resample": Resample,
    "own": Own,
}
KINDS = tuple(KIND)


def check_result(result: Mapping[str, Any]) -> None:
    """Raise ValueError unless a result is what its model declares: no key that nobody would read, no value of another type."""
    if result["kind"] in KIND:  # others have files of their own
        KIND[result["kind"]].model_validate(result)


def read_result(result: Mapping[str, Any], problems: list[str], path: Path | None = None) -> Study | None:
    """The record of a result that may be old, damaged or hostile; None if it is of an unknown kind or has nothing to show."""
    name = f"{FOLDER}/{path.name}: " if path is not None else ""
    kind, counted = result.get("kind"), Problems()
    if not isinstance(kind, str) or kind not in KIND:
        return None
    study = KIND[kind].model_validate(result, context=counted)
    study._path = path or Path()
    if not study:
        counted[f"a study of kind {kind} without results"] += 1
    said = [f"{name}{message}" + (f" ({n:,} times)" if n > 1 else "") for message, n in counted.items()]
    problems += [*said[:10], *([f"{name}{len(said) - 10} more kinds of problems"] if len(said) > 10 else [])]
    return study or None


def read_study(path: Path, problems: list[str]) -> Study | None:
    """One file; None if it is of an unknown kind or can't be read, which `problems` then says."""
    name = f"{FOLDER}/{path.name}"
    try:
        row = json.loads(read_content(path, MAX_BYTES).decode("utf-8", "replace"))
    except OSError as error:
        problems.append(f"{name}: {error.strerror or 'cannot be read'}")
        return None
    except (ValueError, RecursionError):
        problems.append(f"{name}: not valid JSON")
        return None
    if isinstance(row, dict):
        return read_result(row, problems, path)
    problems.append(f"{name}: not a JSON object")
    return None


def read_studies(folder: Path, problems: list[str]) -> list[Study]:
    """The studies in a run's folder, in the order of their steps; kinds that are not known are passed over."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
    except OSError as error:
        problems.append(f"{FOLDER}: {error.strerror or 'cannot be read'}")
        return []
    if len(files) > MAX_FILES:
        problems.append(f"{FOLDER}: {len(files):,} files; only the first {MAX_FILES} were read")
    found = [study for path in files[:MAX_FILES] if (study := read_study(path, problems)) is not None]
    return sorted(found, key=lambda study: (KINDS.index(study.kind), _order(study), study.path.name))


def _order(study: Study) -> int:
    return -1 if study.checkpoint == BASE else study.step
