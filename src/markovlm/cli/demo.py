"""`markovlm demo`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.flags import Command, print_json
from markovlm.errors import UserError
from markovlm.runs.directory import new_run_directory


@click.command(cls=Command, short_help="Run the whole method on a tiny model, in a minute or two.")
@click.option("--out", type=click.Path(path_type=Path), help="run directory [default runs/demo-…]")
@click.option("--seed", default="0", help="random seed [default 0]")
@click.option(
    "--words",
    is_flag=True,
    help="use embedded-words, which reasons in sentences: does the answer follow a changed CoT? (a few minutes)",
)
@click.option(
    "--real",
    is_flag=True,
    help="use smollm2, a real language model of 135 M parameters, fetched first (tens of minutes on two cores)",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="continue an interrupted demo")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.option("--device", default="auto", help="cpu, cuda or auto")
def demo(out: Path | None, seed: str, words: bool, real: bool, resume: Path | None, as_json: bool, device: str) -> None:
    """Run the whole method in a minute or two: evaluate the bundled model, train it, evaluate it again, study its CoTs."""
    from markovlm.api.training import configure
    from markovlm.runs.ahead import resumed_config

    if words and real:
        raise UserError("--words and --real choose different models; give only one")
    if resume is not None and (out is not None or words or real):
        raise UserError("--resume continues a demo unchanged; leave out --out, --words and --real")
    model, name = ("smollm2", "demo-real") if real else ("embedded-words", "demo-words") if words else ("embedded", "demo")
    if resume is None:
        config = configure(over={"model": model, "seed": seed, "loading": {"device": device}}, source="demo")
    else:
        config = resumed_config(resume, {"loading": {"device": device}})
    from markovlm.demo import demo as run_demo
    from markovlm.terminal.console import counting, stderr, training_progress

    console = stderr()
    directory = resume or out or new_run_directory(name)
    try:
        with training_progress(console) as progress:
            result = run_demo(
                config,
                directory,
                progress,
                lambda label, n: counting(console, label, n),
                intervene=config.model == "embedded-words",
                resume=resume is not None,
            )
    except KeyboardInterrupt:
        if (directory / "config.yaml").exists():
            click.echo(f"continue with: markovlm demo --resume {directory}", err=True)
        raise
    if as_json:
        print_json(result.to_json())
    else:
        from markovlm.terminal.demo import show_demo

        show_demo(result)
