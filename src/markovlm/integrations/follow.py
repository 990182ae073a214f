"""Growing logs, judged again whenever they have grown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.health.diagnose import Diagnosis, diagnose_run
from markovlm.logs.files import split_run
from markovlm.logs.find import find_runs, read_launches
from markovlm.logs.frameworks import Framework

_BUSY = 10.0  # at least this many times the time of a reading lies between two: a huge log is not read all the time


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict that is not what it was. `before` is None for a run's first."""

    path: Path
    before: str | None
    diagnosis: Diagnosis

    @property
    def matters(self) -> bool:
        """Is it more than a first look at a run without alarms?"""
        return self.before is not None or self.diagnosis.verdict in ("warn", "collapsed")

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
            "launch": {"number": found.run.launch[0], "of": found.run.launch[1]},
            "cause": None if found.cause is None else found.cause.name,
        }


def follow(
    paths: Sequence[str | Path],
    every: float,
    idle: float | None,
    mapping: Framework | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Change]:
    """Changes of verdict, for ever, or until nothing has grown for `idle` seconds. Runs that appear later are taken up.

    Raises UserError where a path is not there, or where no run is there at first.
    """
    seen: dict[Path, tuple[Any, list[str]]] = {}  # path -> (what its files looked like, the verdict on each of its launches)
    verdicts: dict[Path, dict[int, str]] = {}
    grown = clock()
    found = find_runs(paths)
    while True:
        started = clock()
        for path in found:
            looks = _looks(path)
            before = seen.get(path)
            if before is not None and before[0] == looks:
                continue
            grown = clock()
            runs = read_launches(path, 0, mapping)
            for run in (
                runs if before is None else runs[min(len(before[1]), len(runs)) - 1 :]
            ):  # earlier launches of the log are over
                number = run.launch[0] - 1 if len(runs) > 1 else 0
                said = before[1][number] if before is not None and number < len(before[1]) else None
                diagnosis = diagnose_run(run)
                verdicts.setdefault(path, {})[number] = diagnosis.verdict
                if said != diagnosis.verdict:
                    yield Change(path, said, diagnosis)
            seen[path] = (looks, [verdicts[path][number] for number in range(len(runs))])
        if idle is not None and clock() - grown >= idle:
            return
        sleep(max(every, _BUSY * (clock() - started)))
        found = find_runs(paths)


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
