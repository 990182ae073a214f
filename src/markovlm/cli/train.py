"""`markovlm train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from markovlm.cli.common import force_flag, rank, with_plugins
from markovlm.cli.flags import Command, config_flags, overrides, print_json
from markovlm.errors import UserError
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="Train a model; every configuration key is a flag.")
@click.argument("config_file", metavar="[CONFIG.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--config", "config_option", type=click.Path(path_type=Path), help="the same as the argument CONFIG.yaml")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="continue a run from its last checkpoint")
@click.option("--out", type=click.Path(path_type=Path), help="run directory [default runs/TASK-DATE-TIME-XXXX]")
@click.option(
    "--dry-run", is_flag=True, help="show what would be done, with tokens per step and a memory estimate; load no weights"
)
@click.option("--processes", type=click.IntRange(1), help="with --dry-run: memory per process, if torchrun starts this many")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object at the end")
@force_flag
@config_flags()
def train(
    config_file: Path | None, config_option: Path | None, resume: Path | None, out: Path | None, dry_run: bool, processes: int | None, as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Train a model. Every configuration key is a flag; flags override the file, and the file overrides a model's defaults."""
    from markovlm.api import training as api
    from markovlm.runs.ahead import check_ahead, resumed_config
    from markovlm.terminal.console import stderr, training_progress

    over = overrides(flags)
    file = config_file or config_option
    if processes is not None and not dry_run:
        raise UserError(
            "--processes belongs to --dry-run; start training on several with torchrun --nproc-per-node N -m markovlm train …"
        )
    if resume is not None and (file is not None or out is not None):
        raise UserError("--resume uses the run's own configuration and directory; leave out CONFIG.yaml and --out")
    if resume is not None:
        config = resumed_config(resume, over)
    else:
        config = api.configure(file, over=with_plugins(over), source=str(file) if file else "train")
    check_ahead(config, config.data.train_split, config.data.dev_split)
    if dry_run:
        _show_plan(config, processes or 1, as_json)
        return
    with training_progress(stderr()) as progress:
        result = api.train(config, resume or out, resume=resume is not None, progress=progress)
    if rank():
        return  # the main process speaks
    if as_json:
        print_json(
            {
                "run": str(result.run),
                "steps": result.steps,
                "seconds": result.seconds,
                "best_step": result.best_step,
                "interrupted": result.interrupted,
            }
        )
    elif result.steps:
        verb = "interrupted; continue with: markovlm train --resume" if result.interrupted else "done:"
        say(f"{verb} {result.run}")
        if not result.interrupted:
            say(f"evaluate it with: markovlm eval {result.run} --checkpoints all --baseline")


def _show_plan(config: Any, processes: int, as_json: bool) -> None:
    from markovlm.terminal.plan import show_plan
    from markovlm.training.plan import plan

    found = plan(config, processes)
    print_json(found) if as_json else show_plan(found)
