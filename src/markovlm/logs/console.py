"""What a trainer printed: dictionaries of the Hugging Face Trainer among progress bars, verl's `step:…` lines.

Read in pieces of bounded size; lines may be endless (a progress bar draws itself with carriage returns). Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from markovlm.logs.columns import Columns
from markovlm.logs.external import Row, fill, new_run, step_of
from markovlm.logs.files import open_stream
from markovlm.logs.records import RunData
from markovlm.logs.rows import Problems

_CHUNK = 1 << 20
_MAX_PIECE = 1 << 18  # of one piece between line ends; what is longer is no metric row
_DICT = re.compile(r"\{\s*['\"][^{}]*\}")
_PAIR = re.compile(
    r"""(['"])((?:(?!\1)[^\\]|\\.){1,200})\1\s*:\s*(?:(['"])((?:(?!\3)[^\\]|\\.)*)\3|([^,{}'"]+?(?:\([^()]*\))?))\s*(?=[,}])"""
)
_BAR = re.compile(r"^\s*\d{1,3}%\|[^|]{0,400}\|\s*(\d+)/(\d+)\s")
_VERL = re.compile(r"\bstep:(\d+)\s+-\s+(\S+:.*)$")
_TOTAL = re.compile(r"Total optimization steps = ([\d,]{1,12})$")
_GLOBAL = re.compile(r"Global step (\d{1,12})\b")  # OpenRLHF
_JUMP = 10  # a bar that goes from nothing to more than this at once is of a resumed run; quick steps are drawn a few at a time
_MARKS = {"loss", "reward", "rewards", "learning_rate", "grad_norm", "eval_loss", "policy_loss", "actor_lr"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STEPS = ("step", "global_step", "global_step/max_steps", "current_steps")


def pieces(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """(line number, text) between line ends and carriage returns, without colours; over-long pieces are cut."""
    line, rest = 1, b""
    while chunk := file.read(_CHUNK):
        parts = re.split(rb"(\r\n|\n|\r)", rest + chunk)
        rest = parts.pop()
        for text, end in zip(parts[::2], parts[1::2], strict=True):
            if text:
                yield line, _clean(text)
            line += b"\n" in end
        if len(rest) > _MAX_PIECE:
            rest = rest[:_MAX_PIECE]
    if rest:
        yield line, _clean(rest)


def _clean(raw: bytes) -> str:
    text = raw[:_MAX_PIECE].decode("utf-8", "replace")
    return _COLOUR.sub("", text) if "\x1b" in text else text


def dictionaries(text: str) -> Iterator[dict[str, str]]:
    """Flat dictionaries as Python or JSON prints them; values stay text."""
    if "{" not in text:
        return
    for found in _DICT.findall(text):
        row = {pair[1]: pair[3] or pair[4] for pair in _PAIR.findall(found)}
        if row:
            yield row


class _Steps:
    """What progress bars and epochs say of the steps of rows that do not say it themselves.

    Where output is buffered, rows are printed after their bar, in bursts; never before. So a row's bar is an upper bound of its step.
    """

    def __init__(self) -> None:
        self.total, self.now, self.begun = 0, 0, 0  # of the training's bar; the count at which it began (resumed: above 0)
        self.part = 0  # grows with every restart within the file

    def see(self, text: str) -> None:
        """Look at a piece of output that is no row."""
        found = _TOTAL.search(text)
        if found is not None:
            self.total, self.now, self.begun = int(found[1].replace(",", "")), 0, 0
            return
        found = _BAR.match(text)
        if found is None:
            return
        now, total = int(found[1]), int(found[2])
        self.total = self.total or total
        if total != self.total:  # an evaluation's bar, or a data set's
            return
        if now < self.now:
            self.part, self.begun = self.part + 1, 0
        if self.now == 0 and now > _JUMP:
            self.begun = now - 1
        self.now = now

    def beside(self) -> dict[str, float]:
        """What is kept with a row until all are read."""
        return {"_bar": float(self.now), "_begun": float(self.begun), "_part": float(self.part)} if self.now else {}


def _number_rows(columns: Columns, run: RunData) -> None:
    """Give steps to the rows that have none: k-th row x steps a row, from the bars; else from even epochs."""
    bars, begun, parts, epochs = (columns.take(key) for key in ("_bar", "_begun", "_part", "epoch"))
    if any(step != columns.NO_STEP for step in columns.steps):
        return
    n = len(columns)
    if bars is not None and begun is not None and parts is not None and np.isfinite(bars).all():
        since = np.arange(1, n + 1, dtype=np.float64)
        for part in np.unique(parts):
            here = np.flatnonzero(parts == part)
            since[here] = np.arange(1, len(here) + 1)
        done = bars - begun
        every = int(np.floor(np.min(done / since / columns.stride)))
        if every >= 1:
            columns.set_steps((begun + since * every * columns.stride).astype(np.int64))
            run.rows_mean_over = every
            return
    if epochs is not None and n > 1 and np.isfinite(epochs).all():
        forward = np.diff(epochs)[np.diff(epochs) > 0]
        unit = float(np.median(forward)) / columns.stride if len(forward) else 0.0
        if unit > 0 and len(forward) >= 0.9 * (n - 1) and epochs[0] < 1.5 * unit * columns.stride:
            columns.set_steps(np.maximum(1, np.rint(epochs / unit)).astype(np.int64))


def metric_rows(path: Path, steps: _Steps) -> Iterator[Row]:
    """Every printed row of metrics, values as text."""
    before: tuple[int | None, dict[str, str]] | None = None
    with open_stream(path) as file:
        for line, text in pieces(file):
            steps.see(text)
            verl = _VERL.search(text) if "step:" in text else None
            if verl is not None:
                pairs = (part.rpartition(":") for part in verl[2].split(" - "))
                yield line, int(verl[1]), {key.strip(): value for key, _, value in pairs if key}
                continue
            told = _GLOBAL.search(text) if "lobal step" in text else None
            for row in dictionaries(text):
                step = int(told[1]) if told else step_of(row, _STEPS)
                if (step, row) == before:  # every process prints it, or the terminal is captured twice
                    continue
                before = (step, row)
                yield line, step, row | steps.beside()


def looks_printed(path: Path, most: int = 32 << 20) -> bool:
    """Is there a row of training metrics within the first megabytes?"""
    seen = 0
    with open_stream(path) as file:
        for _, text in pieces(file):
            if "step:" in text and (found := _VERL.search(text)) is not None and " - " in found[2] and "/" in found[2]:
                return True
            if "{" in text and any(_MARKS & row.keys() for row in dictionaries(text)):
                return True
            seen += len(text) + 1
            if seen > most:
                return False
    return False


def read_console(path: Path) -> RunData:
    """A console log."""
    run, problems, steps = new_run(path, "console"), Problems(), _Steps()
    fill(run, metric_rows(path, steps), problems, settle=lambda columns: _number_rows(columns, run))
    if steps.total:
        run.config["training.steps"] = steps.total
    run.problems += problems.lines(path.name)
    return run
