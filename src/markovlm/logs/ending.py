"""The error that a printed log ends with: a traceback, running out of memory, or a final message of a scheduler or the system."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markovlm.logs.records import RunData

MOST = 300  # characters of an error that are kept
_LOOKED_AT = 600  # characters of a line
_RAISED = re.compile(r"(?:^|[\s\])])((?:\w{1,60}\.){0,8}\w{0,60}(?:Error|Exception|Interrupt|Exit|Timeout)(?::.*)?)$")
_TRACEBACK = "Traceback (most recent call last)"
_LAST_WORDS = (
    "CUDA out of memory", "Out of memory: Killed", "oom-kill", "OutOfMemoryError", "slurmstepd: error:", "srun: error:", "CANCELLED AT",
    "DUE TO TIME LIMIT", "Segmentation fault", "Bus error", "Watchdog caught collective operation timeout", "received signal: SIG",
)  # fmt: skip


def _last_words(text: str) -> str | None:
    """The part of a line that says why the process ended, or None."""
    if text.strip() == "Killed":
        return "Killed"
    at = min((text.find(words) for words in _LAST_WORDS if words in text), default=-1)
    return None if at < 0 else text[max(0, text.rfind(": ", 0, at) + 2 if at < 200 else at) :].strip()


class Ending:
    """Watches the text of a log for errors. One that rows follow did not end the run, unless they are of the next launch."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []  # (line, text) of the last error since the last row, one for each stretch of rows
        self._open: tuple[int, str] | None = None
        self._in_traceback = False

    def see(self, line: int, text: str) -> None:
        """One piece of output."""
        text = text[:_LOOKED_AT]
        if _TRACEBACK in text:
            self._in_traceback = True
            return
        raised = _RAISED.search(text) if self._in_traceback else None
        said = raised[1].strip() if raised is not None else _last_words(text)
        if said:
            self._open = (line, said[:MOST])
            self._in_traceback = self._in_traceback and raised is None

    def row(self, line: int) -> None:
        """A row of metrics was printed at this line."""
        if self._open is not None:
            self._found.append(self._open)
            self._open = None
        self._in_traceback = False

    def tell(self, launches: Sequence[RunData]) -> None:
        """Give each launch the error that ended it, as an event: `{"kind": "error", "text": …, "line": …}`."""
        ends = [*self._found, self._open] if self._open is not None else self._found
        starts = [min(run.lines.values(), default=0) for run in launches]
        for k, run in enumerate(launches):
            last = max(run.lines.values(), default=0)
            after = [
                end for end in ends if end is not None and end[0] > last and (k + 1 == len(launches) or end[0] < starts[k + 1])
            ]
            if after:
                run.events.append({"kind": "error", "text": after[-1][1], "line": after[-1][0]})
