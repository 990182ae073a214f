"""`markovlm sweep-cell`: one run of a sweep, started by its engine. Trains or continues, then evaluates."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovlm.errors import StopVerdict

if TYPE_CHECKING:
    from markovlm.sweeps.spec import FinalEvaluation


@click.command("sweep-cell", hidden=True)
@click.argument("config_file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="run directory")
@click.option("--stop-file", type=click.Path(path_type=Path), required=True, help="ends the run after its step once it is there")
@click.option("--evaluate", "evaluation", help="final evaluation, as JSON")
@click.option("--evaluation", "result", type=click.Path(path_type=Path), help="where its result goes")
def sweep_cell(config_file: Path, out: Path, stop_file: Path, evaluation: str | None, result: Path | None) -> None:
    """One run of a sweep: train it or continue it, then evaluate it."""
    from markovlm.api import training as api
    from markovlm.sweeps.run import watch_parent
    from markovlm.sweeps.spec import FinalEvaluation
    from markovlm.sweeps.state import ended, is_evaluated
    from markovlm.terminal.console import stderr, training_progress

    def ask() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    # loads its plug-ins: they are named by the SWEEP.yaml that was given, not by what lies in a run directory
    trusted = bool((api.base_layer(config_file).get("loading") or {}).get("trust_remote_code"))
    keys: dict[str, Any] = {"loading__trust_remote_code": True} if trusted else {}
    threading.Thread(target=watch_parent, args=(stop_file, ask, os.getppid(), os.getppid), daemon=True).start()
    verdict: StopVerdict | None = None
    resume = (out / "config.yaml").exists()
    if not (resume and ended(out)):
        with training_progress(stderr()) as progress:
            try:
                trained = api.train(None if resume else config_file, out, resume=resume, progress=progress, **keys)
                if trained.interrupted:
                    return
            except StopVerdict as error:  # a result like any other, and evaluated like one
                verdict = error
    asked = None if evaluation is None else FinalEvaluation.model_validate_json(evaluation)
    if asked is not None and result is not None and not is_evaluated(result, asked):
        _evaluate(out, asked, result, keys)
    if verdict is not None:
        raise verdict


def _evaluate(run: Path, asked: FinalEvaluation, result: Path, keys: dict[str, Any]) -> None:
    from markovlm.api.evaluation import evaluate
    from markovlm.sweeps.state import write_evaluation

    found = evaluate(run, checkpoints=asked.checkpoint, split=asked.split, limit=asked.limit, baseline=asked.baseline, **keys)
    write_evaluation(result, asked, found.report)
