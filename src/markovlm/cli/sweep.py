"""`markovlm sweep`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.common import with_plugins
from markovlm.cli.flags import Command, print_json
from markovlm.errors import RunFailed, UserError
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="Run a matrix of runs and compare them over seeds.")
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", help="what runs the cells [default local]")
@click.option("--jobs", type=int, help="runs at the same time [default: as many as the cores and GPUs can take]")
@click.option("--out", type=click.Path(path_type=Path), help="directory of the sweep [default runs/NAME-sweep]")
@click.option(
    "--only",
    multiple=True,
    help="run only cells whose name contains this, e.g. objective=ppo or seed=3; repeat to require all of several",
)
@click.option("--dry-run", is_flag=True, help="print the cells and an estimate; start nothing")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object at the end")
def sweep(
    sweep_file: Path, engine: str, jobs: int | None, out: Path | None, only: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Run a matrix of runs, and compare its cells. Repeat the command to continue."""
    from markovlm.sweeps.page import write_comparison
    from markovlm.sweeps.plan import plan_sweep
    from markovlm.sweeps.run import open_sweep, part_of, run_sweep, statuses_of
    from markovlm.sweeps.state import progress_of
    from markovlm.terminal.console import stderr
    from markovlm.terminal.sweep import show_cells, show_comparison, sweep_progress

    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: must be at least 1")
    whole = open_sweep(sweep_file, out, with_plugins({}))
    opened = part_of(whole, only)
    if dry_run:
        planned = plan_sweep(opened)
        print_json(planned) if as_json else show_cells(planned["cells"], planned["lines"])
        return
    cells = {cell.name: cell for cell in opened.cells}
    with sweep_progress(stderr(), lambda name, status: progress_of(opened.layout, cells[name], status)) as progress:  # pyright: ignore[reportArgumentType]
        result = run_sweep(opened, engine=engine, jobs=jobs, watcher=progress)
    written = None
    if not result.interrupted:
        written = write_comparison(whole, {**statuses_of(whole), **result.statuses})
        result = result.with_report(written.page, written.runs_report)
    if as_json:
        print_json(result.as_json())
    elif written is not None:
        show_comparison(written.comparison, written.metric, written.notes)
        say(f"cells: {result.report}")
        say(f"all runs: {result.runs_report}")
    else:
        say(f"interrupted; repeat the command to continue: {opened.layout.path}")
    failed = [name for name, status in result.statuses.items() if status == "failed"]
    if failed:
        raise RunFailed(f"{len(failed)} of {len(cells)} cells failed: {failed[0]}: {opened.messages.get(failed[0], '')}")
