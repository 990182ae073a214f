"""`markovlm audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from markovlm.cli.common import force_flag
from markovlm.cli.flags import Command, config_flags, overrides, print_json
from markovlm.cli.study import listed
from markovlm.errors import UserError
from markovlm.terminal.plain import say

_KEYS = (
    "loading",
    "prompt",
    "seed",
    "evaluation.extractors",
    "evaluation.reader",
    "evaluation.batch_size",
    "rollouts.max_cot_tokens",
)


@click.command(cls=Command, short_help="CoTs from any source: do their answers follow from them?")
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--reader",
    "--readers",
    "readers",
    multiple=True,
    metavar="MODEL",
    help="model that reads the CoTs: a Hub id, directory, run, http://HOST:8000, or a name from `markovlm models`; repeatable",
)
@click.option(
    "--task",
    metavar="TYPE|TASK",
    help="how to read answers: number, letter, text, or a task's name [default: inferred from the gold answers]",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="NAME=COLUMN,…",
    help="the files' own names for question, cot or completion, answer, … (docs/audit.md)",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME=FILE",
    help="assign a file's CoTs to a group; files with the same NAME form one group",
)
@click.option(
    "--only", metavar="LIST", help="any of damage, leak, load, bypass, legibility, hints, comma-separated [default all]"
)
@click.option(
    "--judge",
    metavar="MODEL",
    help="model that judges whether a CoT mentions the hint that it used, for rows with hints (docs/audit.md)",
)
@click.option(
    "--budget", "minutes", type=float, metavar="MINUTES", help="time limit for reading; determines how many questions are read"
)
@click.option("--perturbations", metavar="LIST", help="perturbations, comma-separated [default: seven] (docs/audit.md)")
@click.option("--severities", metavar="LIST", help="severities, from 0 to 1, comma-separated [default 0.2,0.6,1]")
@click.option(
    "--sentences",
    "most_sentences",
    type=int,
    default=40,
    help="most pieces that a CoT is split into for occlusion [default 40]",
)
@click.option("--limit", type=int, help="questions per group [default all]")
@click.option("--out", type=click.Path(path_type=Path), help="directory for readings and results [default FILE.audit/]")
@click.option(
    "--dry-run", is_flag=True, help="show what the files contain and the estimated cost of reading the CoTs; run no model"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@force_flag
@config_flags(*_KEYS)
def audit(files: tuple[Path, ...], readers: tuple[str, ...], dry_run: bool, as_json: bool, **flags: Any) -> None:
    """Give CoTs from any source to models that did not write them: do the answers follow, and from what?"""
    from markovlm.api.auditing import audit_request, preview, run_audit

    if flags.get("short__data") is not None or flags.get("options"):
        raise UserError("--data and --option: an audit takes its questions from FILE; name a task with --task")
    request = audit_request(
        files,
        listed(readers),
        task=flags["task"],
        columns=flags["columns"],
        groups=flags["groups"],
        judge=flags["judge"],
        minutes=flags["minutes"],
        only=listed((flags["only"],)) if flags["only"] else None,
        perturbations=listed((flags["perturbations"],)) if flags["perturbations"] else None,
        severities=_numbers(flags["severities"]),
        most_sentences=flags["most_sentences"],
        limit=flags["limit"],
        out=flags["out"],
        config=overrides({key: value for key, value in flags.items() if key.startswith("key__") or key == "short__device"}),
    )
    from markovlm.terminal.audit import show_audit, show_preview
    from markovlm.terminal.console import counting, stderr, stdout

    if dry_run:
        found = preview(request)
        print_json(found) if as_json else show_preview(stdout(), found)
        return
    console = stderr()
    result, page = run_audit(request, counting=lambda label, n: counting(console, label, n), say=lambda line: say(line, err=True))
    kept = [str(request.out / "audit.json"), str(page)]
    if as_json:
        print_json({**result, "kept": kept})
    else:
        show_audit(stdout(), result)
        for path in kept:
            say(f"kept: {path}")


def _numbers(text: str | None) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise UserError(f"--severities {text}: write numbers between 0 and 1, such as 0.2,0.6") from None
