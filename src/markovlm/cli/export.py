"""`markovlm export`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.flags import Command, print_json


@click.command(cls=Command)
@click.argument("run")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="new directory")
@click.option("--merge", is_flag=True, help="write the base model with the adapter merged in, instead of the adapter")
@click.option("--checkpoint", default="last", help="last, best or a step [default last]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def export(run: str, to: Path, merge: bool, checkpoint: str, as_json: bool) -> None:
    """The trained adapter (or merged model) as a directory that transformers and PEFT load, with a model card."""
    from markovlm.runs.export import export as write_export
    from markovlm.runs.targets import open_targets

    target = open_targets(run, checkpoint, {})[0]
    written = write_export(target, to, merge)
    if as_json:
        print_json({"path": str(written), "checkpoint": target.checkpoint, "merged": merge})
    else:
        click.echo(f"{target.checkpoint} of {run} written to {written}")
