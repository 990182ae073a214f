"""Experiment trackers of accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from markovlm.errors import UserError
from markovlm.training.state import Run


@contextlib.contextmanager
def tracking(run: Run) -> Iterator[None]:
    """accelerate's experiment trackers, on the main process."""
    names = run.config.logging.trackers
    if not names or not run.main:
        yield
        return
    from accelerate import Accelerator

    try:
        run.trackers = Accelerator(
            cpu=run.setup.lm.device.type == "cpu", log_with=list(names), project_dir=str(run.directory.path)
        )
        run.trackers.init_trackers("markovlm", config={"run": run.directory.path.name})
    except (ImportError, ValueError) as error:
        raise UserError(f"logging.trackers: {', '.join(names)} cannot be used: {str(error).splitlines()[0]:.200}") from None
    try:
        yield
    finally:
        run.trackers.end_training()
