"""`markovlm demo`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.flags import Command, print_json
from markovlm.runs.directory import new_run_directory


@click.command(cls=Command)
@click.option("--out", type=click.Path(path_type=Path), help="run directory; default runs/demo-…")
@click.option("--seed", default="0", help="of everything random [default 0]")
@click.option(
    "--words",
    is_flag=True,
    help="with embedded-words, which reasons in sentences: does the answer follow a changed CoT? some minutes",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.option("--device", default="auto", help="cpu, cuda or auto")
def demo(out: Path | None, seed: str, words: bool, as_json: bool, device: str) -> None:
    """The whole method in about a minute and a half: evaluate the embedded model, train it, evaluate again, study its CoTs."""
    from markovlm.api.training import configure
    from markovlm.demo import demo as run_demo
    from markovlm.terminal.console import counting, stderr, training_progress

    model, name = ("embedded-words", "demo-words") if words else ("embedded", "demo")
    config = configure(over={"model": model, "seed": seed, "loading": {"device": device}}, source="demo")
    console = stderr()
    with training_progress(console) as progress:
        directory = out or new_run_directory(name)
        result = run_demo(config, directory, progress, lambda label, n: counting(console, label, n), intervene=words)
    if as_json:
        print_json(result.to_json())
    else:
        from markovlm.terminal.demo import show_demo

        show_demo(result)
