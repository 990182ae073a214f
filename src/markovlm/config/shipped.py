"""The configurations that ship with the package: `configs/` of the repository, `markovlm/configs` of the wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from markovlm.errors import UserError
from markovlm.registry import close_match

_PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[3] / "configs")


@dataclass(frozen=True, slots=True)
class Shipped:
    """One of them."""

    name: str  # recommended/gsm8k-24gb
    path: Path
    task: str
    model: str


def shipped() -> dict[str, Shipped]:
    """Name -> configuration, ordered by name."""
    folder = next((place for place in _PLACES if place.is_dir()), None)
    if folder is None:
        return {}
    found: dict[str, Shipped] = {}
    for path in sorted(folder.rglob("*.yaml")):
        layer = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = path.relative_to(folder).with_suffix("").as_posix()
        found[name] = Shipped(name, path, str(layer.get("task", "")), str(layer.get("model", "")))
    return found


def find_config(file: Path) -> Path:
    """`file` where it exists, else the shipped configuration of that name (`recommended/gsm8k`, with or without `configs/` and `.yaml`).

    UserError for a misspelt name of one of those.
    """
    if file.exists() or file.is_absolute():
        return file
    name = file.with_suffix("").as_posix() if file.suffix == ".yaml" else file.as_posix()
    name = name.removeprefix("configs/")
    known = shipped()
    if name not in known and (near := close_match(name, known)):
        raise UserError(f"{file}: no such file{near}")
    return known[name].path if name in known else file
