"""Growing logs, judged again whenever they have grown, and logs that have stopped growing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from markovlm.health.diagnose import Diagnosis, diagnose_run
from markovlm.logs.files import split_run
from markovlm.logs.find import find_runs, read_launches
from markovlm.logs.frameworks import Framework

_BUSY = 10.0  # at least this many times the time of a reading lies between two: a huge log is not read all the time
_SLOW = 10.0  # times the usual time between two rows after which a log is said to have stopped, where no limit is given ...
_LEAST = 600.0  # ... and at least so many seconds: evaluations and checkpoints take a while


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict that has changed, or a log that has stopped growing. `before` is None for a run's first."""

    path: Path
    before: str | None
    diagnosis: Diagnosis
    stalled: float | None = None  # seconds since the log last grew, where that is what is to be said ...
    usual: float | None = None  # ... and seconds between two rows before that, where known

    @property
    def matters(self) -> bool:
        """Whether it is more than a first look at a run without alarms."""
        return self.before is not None or self.stalled is not None or self.diagnosis.verdict in ("warn", "collapsed")

    def as_json(self) -> dict[str, Any]:
        found = self.diagnosis
        return {
            "path": str(self.path),
            "run": found.run.name,
            "before": self.before,
            "verdict": found.verdict,
            "onset_step": found.onset_step,
            "last_step": found.run.last_step,
            "why": found.why,
            "cost": found.cost.as_json(),
            "launch": {"number": found.run.launch[0], "of": found.run.launch[1]},
            "cause": None if found.cause is None else found.cause.name,
            "stalled_seconds": None if self.stalled is None else round(self.stalled, 1),
        }


@dataclass(slots=True)
class _Seen:
    """What is known of one log."""

    looks: Any  # what its files looked like
    grown: float  # when it last grew, by the clock
    verdicts: list[str]  # on each of its launches
    latest: Diagnosis
    gaps: list[float] = field(default_factory=list)  # seconds between its last growths, as seen from here
    stalled: bool = False  # said already

    @property
    def usual(self) -> float | None:
        """The usual number of seconds between two rows: as its rows say, or as it was seen to grow."""
        c, spacing = self.latest.case.course("step_seconds"), self.latest.case.spacing
        said = float(median(c.values[-20:])) * spacing if c is not None else None
        seen = median(self.gaps[-20:]) if len(self.gaps) >= 3 else None
        return max((value for value in (said, seen) if value is not None), default=None)

    @property
    def over(self) -> bool:
        """Whether the log says that the run has ended."""
        run = self.latest.run
        planned = run.config.get("training.steps")
        done = isinstance(planned, int) and run.last_step is not None and run.last_step + 1 >= planned
        return done or any(event.get("kind") in ("end", "error") for event in run.events)


def follow(
    paths: Sequence[str | Path],
    every: float,
    idle: float | None,
    mapping: Framework | None = None,
    stalled: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Change]:
    """Changes of verdict, forever, or until nothing has grown for `idle` seconds. Runs that appear later are included.

    A log that has not grown for `stalled` seconds, and does not say that its run has ended, is reported as stalled, once until it grows
    again. Without a limit given, it is ten times the usual time between two rows, and at least ten minutes.

    Raises UserError if a path does not exist, or if there is no run at first.
    """
    seen: dict[Path, _Seen] = {}
    grown = clock()
    found = find_runs(paths)
    while True:
        started = clock()
        for path in found:
            looks, known = _looks(path), seen.get(path)
            if known is not None and known.looks == looks:
                waited = started - known.grown
                usual = known.usual
                limit = stalled if stalled is not None else None if usual is None else max(_LEAST, _SLOW * usual)
                if limit is not None and waited >= limit and not known.stalled and not known.over:
                    known.stalled = True
                    yield Change(path, known.latest.verdict, known.latest, waited, usual)
                continue
            grown = started
            runs = read_launches(path, 0, mapping)
            verdicts = [] if known is None else known.verdicts
            for run in runs[max(0, min(len(verdicts), len(runs)) - 1) :]:  # earlier launches of the log are over
                number = run.launch[0] - 1 if len(runs) > 1 else 0
                said = verdicts[number] if number < len(verdicts) else None
                diagnosis = diagnose_run(run)
                verdicts = [*verdicts[:number], diagnosis.verdict]
                if known is None:
                    seen[path] = known = _Seen(looks, started - _age(path), verdicts, diagnosis)
                known.verdicts, known.latest = verdicts, diagnosis
                if said != diagnosis.verdict:
                    yield Change(path, said, diagnosis)
            if known is not None and known.looks != looks:
                known.gaps = [*known.gaps[-19:], started - known.grown]
                known.looks, known.grown, known.stalled = looks, started, False
        if idle is not None and clock() - grown >= idle:
            return
        sleep(max(every, _BUSY * (clock() - started)))
        found = find_runs(paths)


def _age(path: Path) -> float:
    """Seconds since a log that is seen for the first time last grew."""
    newest = max((ns for _, _, ns in _looks(path)), default=None)
    return 0.0 if newest is None else max(0.0, time.time() - newest / 1e9)


def _looks(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files that a run is read from."""
    path = split_run(path)[0]
    if path.is_dir():
        files = [path / "metrics.jsonl", path / "evals.jsonl", *sorted((path / "metrics").rglob("*"))]
    elif "tfevents" in path.name:
        files = sorted(path.parent.glob("*tfevents*"))
    else:
        files = [path, path.with_name(f"{path.name}-wal")]
    out: list[tuple[str, int, int]] = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            continue
        out.append((file.name, found.st_size, found.st_mtime_ns))
    return tuple(out)
