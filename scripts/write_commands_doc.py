"""Write docs/commands.md from the commands themselves: `python scripts/write_commands_doc.py`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.main import cli

_HEAD = """# Commands

Written by `python scripts/write_commands_doc.py`. Exit codes:

| code | what |
|---|---|
| 0 | done |
| 1 | the work failed: a full disk, a loss that is not finite, a server that is gone |
| 2 | bad input: one line says what is wrong and what would be right |
| 3 | a verdict that says stop: a collapse; what `diagnose --fail-on` and `watch --fail-on` name; `train` where `health.policy` is `stop` |
| 4 | a log that has stopped growing (`watch --stalled`) |
| 130 | interrupted at once (Ctrl-C twice) |

A run or a sweep that is asked to stop (Ctrl-C once, SIGTERM) ends after its
step, with a checkpoint and exit code 0; `events.jsonl` says `interrupted`. Every command
that computes takes `--json`. Flags that are configuration keys (`--training.lr`, `--objective.name`, …) are in
[the configuration](configuration.md): `train` takes them all, commands that evaluate those of `model`, `loading`, `data`, `prompt`,
`evaluation`, `rollouts`, `task_options`, `task` and `seed`.
"""


def render() -> str:
    """The page."""
    root = click.Context(cli, info_name="markovlm")
    parts = [_HEAD]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=root)
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts.append(f"## {name}\n\n    {usage}\n\n{' '.join((command.help or '').split())}\n")
        rows = [
            f"| `{', '.join(parameter.opts)}{' ' + (parameter.metavar or 'VALUE') if not parameter.is_flag else ''}` | {parameter.help} |"
            for parameter in command.get_params(context)
            if isinstance(parameter, click.Option)
            and "." not in parameter.opts[0]
            and "--help" not in parameter.opts
            and not _is_key(parameter)
        ]
        parts.append("| flag | |\n|---|---|\n" + "\n".join(row.replace("\n", " ") for row in rows) + "\n")
    return "\n".join(parts)


def _is_key(parameter: click.Option) -> bool:
    return (parameter.name or "").startswith("key__")


if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "commands.md").write_text(render(), encoding="utf-8")
