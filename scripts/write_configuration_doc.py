"""Write docs/configuration.md from the field descriptions in `config/`: `python scripts/write_configuration_doc.py`."""

from __future__ import annotations

from pathlib import Path

from markovlm.config import Key, keys

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"

HEAD = """# Configuration

Every key below can stand in a YAML file (nested, `training: {steps: 50}`) and on the command line (`--training.steps 50`). Flags win
over the file, the file over the defaults that come with a model (`markovlm models`). The resolved configuration is
written to `config.yaml` in the run directory; feeding that back repeats the run.

A **schedule** is a number, or one line: `linear 0.5 -> 1`, `cosine 1.5 -> 0.7 over 200`. Without `over` it spans the whole run.
Objectives and their formulas: [objectives.md](objectives.md). This page is made by `scripts/write_configuration_doc.py`.

"""


def render() -> str:
    """The page."""
    lines = [HEAD.rstrip("\n"), ""]
    section = None
    for key in keys():
        name = key.name.split(".")[0] if "." in key.name else "the run"
        if name != section:
            section = name
            lines += [f"## {section}", "", "| key | default | what |", "|---|---|---|"]
        lines.append(row(key))
        if key.name == "task_options":
            section = None
    return "\n".join(_spaced(lines)) + "\n"


def row(key: Key) -> str:
    """One line of a table."""
    default = "" if key.default is None or key.default in ((), {}) else f"`{key.default}`"
    only = f" ({', '.join(f'`{name}`' for name in key.only_for)} only)" if key.only_for else ""
    choices = f" One of {', '.join(f'`{choice}`' for choice in key.choices)}." if key.choices else ""
    others = "".join(f" {_other(names, other, key)}" for names, other in key.otherwise)
    return f"| `{key.name}` | {default} | {key.description}{only}.{choices}{others} |".replace("..", ".").replace(";.", ".")


def _other(names: tuple[str, ...], other: Key, key: Key) -> str:
    """What some objectives say otherwise."""
    said = [] if other.description == key.description else [other.description]
    said += [] if other.default == key.default else [f"default `{other.default}`"]
    return f"{', '.join(f'`{name}`' for name in names)}: {'; '.join(said)}."


def _spaced(lines: list[str]) -> list[str]:
    out: list[str] = []
    for line in lines:
        if line.startswith("## ") and out and out[-1]:
            out.append("")
        out.append(line)
    return out


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
