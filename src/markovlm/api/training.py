"""Train a run, with callbacks and a progress display."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.api.arguments import listed, mapping
from markovlm.api.progress import ShownProgress, is_watched
from markovlm.config import RunConfig, build_config, load_recorded, load_yaml
from markovlm.config.shipped import find_config
from markovlm.errors import UserError
from markovlm.models.registry import defaults_under
from markovlm.plugins import load_plugin
from markovlm.runs.rows import encode_rows, replace_whole
from markovlm.tasks.base import Example

if TYPE_CHECKING:
    from markovlm.training.loop import TrainResult
    from markovlm.training.state import Progress

Row = dict[str, Any]


def configure(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None, *, over: Mapping[str, Any] | None = None, source: str = ""
) -> RunConfig:
    """Build a run's configuration from a file, a mapping, or nothing: a model's defaults beneath it, `over` on top.

    Loads the plug-ins that a file names. Raises UserError in one line that names the first wrong key.
    """
    if isinstance(config, RunConfig):
        return config if not over else build_config(config.model_dump(mode="json"), over, source=source or "config")
    if isinstance(config, str | Path):
        layer = base_layer(Path(config))
        source = source or str(config)
    else:
        layer = mapping(config)
    over = dict(over or {})
    return build_config(defaults_under(layer, over), layer, over, source=source or "config")


def base_layer(file: Path) -> dict[str, Any]:
    """A configuration file that the user named, not yet validated; loads the plug-ins that it names, relative to its directory.

    config.yaml of a run is a record, perhaps somebody else's: code that it names is not run (`load_recorded`).
    """
    if (file.parent / "checkpoints").is_dir():
        return load_recorded(file)
    file = find_config(file)
    layer = load_yaml(file)
    named = layer.get("plugins") or []
    if not isinstance(named, list) or not all(isinstance(path, str) for path in named):
        raise UserError(f"{file}: plugins: must be a list of Python files")
    if named:
        layer["plugins"] = [str(load_plugin(file.parent / path)) for path in named]
    return layer


def train(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    out: str | Path | None = None,
    *,
    questions: Sequence[Example | Mapping[str, Any]] | None = None,
    on_step: Callable[[Row], bool | None] | None = None,
    on_evaluation: Callable[[Row], None] | None = None,
    resume: bool = False,
    progress: Progress | bool | None = None,
    **keys: Any,
) -> TrainResult:
    """Train a run in the directory `out` (default runs/TASK-DATE-TIME-XXXX); with `resume`, continue the run in it.

    `config` is a mapping, a YAML file or a RunConfig; `keys` are single keys with `__` for the dot (`training__steps=20`). `questions`:
    your own, kept in the run directory and split by a fixed rule. `on_step` gets each metric row (docs/run-directory.md) and ends the
    run after that step, resumable, by returning False; `on_evaluation` gets each row of evals.jsonl. A terminal or a notebook shows a
    bar, unless `progress` is False. Raises UserError for what can't be started, RunFailed for what failed during training, StopVerdict
    if the guard ended it.

        markovlm.train({"model": "embedded"}, "runs/first", training__steps=5)
    """
    from markovlm.api.models import settings
    from markovlm.runs.ahead import check_ahead, resumed_config
    from markovlm.runs.directory import new_run_directory

    over = settings(None, keys)
    rows = None if questions is None else _rows(questions)
    watch = _Watch(progress, on_step, on_evaluation)
    if resume:
        if out is None or questions is not None or not (config is None or isinstance(config, RunConfig)):
            raise UserError("resume: the configuration and the questions are those of the run in `out`; give `out` alone")
        directory, made = Path(out), config or resumed_config(Path(out), over)
    else:
        made = configure(config, over=over if rows is None else {"task": "custom", **over})
        directory = Path(out) if out is not None else new_run_directory(made.task)
    if rows is None:
        check_ahead(made, made.data.train_split, made.data.dev_split)
    from markovlm.training.loop import train as run

    with contextlib.nullcontext(None) if rows is None else _kept(directory, rows) as path:
        if path is not None:
            made = configure(made, over={"data": {"path": str(path)}})
        with contextlib.closing(watch):
            return run(made, directory, resume=resume, progress=watch, stop=watch.asked_to_stop)


@contextlib.contextmanager
def _kept(out: Path, rows: bytes) -> Iterator[Path]:
    """The file of a new run's questions; taken back, with the directory, where the run never begins."""
    from markovlm.runs.directory import QUESTIONS_FILE, RunDirectory

    directory = RunDirectory(out)
    directory.create()
    path = out / QUESTIONS_FILE
    try:
        replace_whole(path, rows)
        yield path
    except BaseException:
        if not directory.config.exists() and not (out / ".lock").exists():  # the lock of another process, which has begun
            path.unlink(missing_ok=True)
            directory.discard()
        raise


def _rows(questions: Sequence[Example | Mapping[str, Any]]) -> bytes:
    """As lines of a file. Raises UserError naming the first that is not a question."""
    lines: list[bytes] = []
    given = listed("questions", questions, (Example, Mapping), "mappings with question and answer, or of Examples")
    for number, one in enumerate(given):
        try:
            lines.append(encode_rows([_question(one, number)]))
        except (TypeError, ValueError) as error:
            raise UserError(f"questions[{number}]: can't be written as JSON ({error})") from error
    if not lines:
        raise UserError("questions: the list is empty")
    return b"".join(lines)


def _question(given: Example | Mapping[str, Any], number: int) -> dict[str, Any]:
    if isinstance(given, Example):
        return {"id": given.id, "question": given.question, "answer": given.answer, "choices": list(given.choices)}
    missing = {"question", "answer"} - set(given)
    if missing:
        raise UserError(f"questions[{number}]: has no {' and no '.join(sorted(missing))}")
    return dict(given)


class _Watch:
    """Passes on to a progress display and to callbacks."""

    def __init__(
        self,
        progress: Progress | bool | None,
        on_step: Callable[[Row], bool | None] | None,
        on_evaluation: Callable[[Row], None] | None,
    ):
        from markovlm.training.state import Silent

        shown = is_watched() if progress is None else progress
        self._bar = ShownProgress() if shown is True else None
        self._progress = self._bar or (Silent() if isinstance(shown, bool) else shown)
        self._on_step, self._on_evaluation = on_step, on_evaluation
        self._stop = False

    def start(self, steps: int, done: int) -> None:
        self._progress.start(steps, done)

    def step(self, row: Row) -> None:
        self._progress.step(row)
        if self._on_step is not None and self._on_step(row) is False:
            self._stop = True

    def evaluation(self, row: Row) -> None:
        self._progress.evaluation(row)
        if self._on_evaluation is not None:
            self._on_evaluation(row)

    def note(self, message: str) -> None:
        self._progress.note(message)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def asked_to_stop(self) -> bool:
        return self._stop
