"""`trainer_state.json` of the Hugging Face Trainer, read as a stream: whole, huge or cut off anywhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markovlm.logs.external import Row, fill, new_run
from markovlm.logs.files import open_stream
from markovlm.logs.records import RunData
from markovlm.logs.rows import Problems, integer

NAME = "trainer_state.json"
_MARK = b'"log_history"'
_CHUNK = 1 << 20
_MAX_SETTINGS = 1 << 20  # bytes before and after the history
_MAX_ROW = 4 << 20


def is_trainer_state(head: bytes) -> bool:
    """Recognised by the first bytes of a file: a JSON object with a `log_history` and what the Trainer writes beside it."""
    return head.lstrip()[:1] == b"{" and (_MARK in head or (b'"best_metric"' in head and b'"global_step"' in head))


class _History:
    """The rows of `log_history`, one at a time; then `settings` holds the other keys that could be read."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.path, self.problems = path, problems
        self.settings: dict[str, Any] = {}

    def rows(self) -> Iterator[Row]:
        decoder = json.JSONDecoder()
        with io.TextIOWrapper(open_stream(self.path), encoding="utf-8", errors="replace") as file:
            text = file.read(_CHUNK)
            at = text.find('"log_history"')
            if at < 0:
                self.problems.note("no log_history within the first megabyte")
                return
            self._take_settings(text[:at].rstrip().rstrip(",") + "}")
            line = text.count("\n", 0, at) + 1
            text = text[text.find("[", at) + 1 :] if "[" in text[at:] else ""
            while True:
                text, skipped = _skip(text)
                line += skipped
                if text.startswith("]"):
                    self._take_settings("{" + text[1:].lstrip().lstrip(",") + file.read(_MAX_SETTINGS))
                    return
                try:
                    value, end = decoder.raw_decode(text)
                except (ValueError, RecursionError):
                    more = file.read(_CHUNK) if len(text) < _MAX_ROW else ""
                    if not more:
                        self.problems.note("the file is cut off or damaged within log_history; the rows before are used")
                        return
                    text += more
                    continue
                if isinstance(value, dict):
                    yield line, None, value
                else:
                    self.problems.add("not a JSON object in log_history", line)
                line += text.count("\n", 0, end)
                text = text[end:]

    def _take_settings(self, text: str) -> None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict):
            self.settings |= found


def _skip(text: str) -> tuple[str, int]:
    """Without leading blanks and commas, and how many lines that were."""
    rest = text.lstrip(" \t\r\n,")
    return rest, text.count("\n", 0, len(text) - len(rest))


def read_trainer_state(path: Path) -> RunData:
    """One file. Its run has the name of the output directory."""
    run, problems = new_run(path, "trainer_state", run_name(path)), Problems()
    history = _History(path, problems)
    fill(run, history.rows(), problems)
    every = integer(history.settings.get("logging_steps"))
    run.rows_mean_over = every if every is not None and every > 1 else _spacing(run)
    planned = integer(history.settings.get("max_steps"))
    if planned is not None and planned > 0:
        run.config["training.steps"] = planned
    run.problems += problems.lines(path.name)
    return run


def _spacing(run: RunData) -> int:
    """Steps between rows, where they are even; the first row counts from 0."""
    gaps = run.metrics["step"].diff().drop_nulls().unique().to_list() if run.steps > 1 else []
    return int(gaps[0]) if len(gaps) == 1 and gaps[0] == run.metrics["step"][0] and gaps[0] > 0 else 1


def run_name(path: Path) -> str:
    """The output directory's name: `out/checkpoint-50/trainer_state.json` is of the run `out`."""
    if path.name != NAME:
        return path.stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name.startswith("checkpoint-") else folder.name
