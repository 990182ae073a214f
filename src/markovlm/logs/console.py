"""What a trainer printed: dictionaries of the Hugging Face Trainer among progress bars, verl's `step:…` lines, `key: value` lines of a
home-made loop; and with what error it ended.

Read in pieces of bounded size; lines may be endless (a progress bar draws itself with carriage returns). Nothing is evaluated. A
dictionary with rewards but nothing of an update (a loss, a gradient, a step) is a printed sample, not a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from markovlm.logs.columns import LogColumns
from markovlm.logs.ending import Ending
from markovlm.logs.external import Row, fill, new_run, numbers_of, step_of
from markovlm.logs.families import family, words
from markovlm.logs.files import open_stream
from markovlm.logs.records import RunData
from markovlm.logs.rows import Problems

_CHUNK = 1 << 20
_LOOKED_AT = 32 << 20  # characters by which a file is recognised
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
# A few numbers behind names in a line of text: `rl_loss: -0.005, reward: .6`, `step 12 | reward=0.5 | kl=0.01`.
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b"
_NAMED = re.compile(rf"([A-Za-z][\w/@.-]{{0,48}}(?: [A-Za-z][\w-]{{0,20}}){{0,2}})\s*[:=]\s*({_NUMBER})(?=[\s,;|)\]%]|$)")
_NAMED_DICT = re.compile(r"([A-Za-z][\w/]{0,48})\s*[:=]\s*(\{\s*['\"][^{}]*\})")
_OF_STEP = re.compile(
    r"\b(?:global |train(?:ing)? )?(?:step|iteration|iter|rollout|update|batch)\s*[:=#]?\s*\[?(\d{1,12})(?:\s*(?:/|of)\s*\d+)?",
    re.IGNORECASE,
)
_BEFORE_DICT = re.compile(r"\b(?:step|rollout|iteration|iter|update)\s+(\d{1,12})\s*:\s*$", re.IGNORECASE)
_RANK = re.compile(r"^\s*\[?(?:rank|default|worker|process|local_rank)[ :=_]?(\d{1,4})\]?\s*[:\]]?", re.IGNORECASE)
_BULLET = re.compile(rf"^[^\w]{{0,12}}[•·*-]\s*([A-Za-z][\w /@.-]{{0,48}}):\s*({_NUMBER})(?=[\s,;|)\]%]|$)")
_HINT = re.compile(r"loss|reward|score|return", re.IGNORECASE)
_MARKS = {
    "loss", "reward", "rewards", "learning_rate", "grad_norm", "eval_loss", "policy_loss", "actor_lr", "raw_reward", "train/loss",
    "rollout/raw_reward", "train/reward",
}  # fmt: skip
_UPDATES = frozenset({  # what only an update of the policy has
    "loss", "loss_policy", "loss_value", "grad_norm", "lr", "kl", "entropy", "behavior_kl", "ratio_clipped_fraction", "eval_loss", "step_seconds",
})  # fmt: skip
_UPDATING = frozenset({"loss", "lr", "kl", "entropy", "grad", "gradient", "clip", "clipfrac", "epoch", "norm", "tokens"})
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STEPS = ("step", "global_step", "global_step/max_steps", "current_steps")


def pieces(file: IO[bytes]) -> Iterator[tuple[int, str, bool]]:
    """(line number, text, whole?) between line ends and carriage returns, without colours; over-long pieces are cut.

    The last piece is not whole where no line end follows it: it is still being written, or was cut.
    """
    line, rest = 1, b""
    while chunk := file.read(_CHUNK):
        parts = re.split(rb"(\r\n|\n|\r)", rest + chunk)
        rest = parts.pop()
        for text, end in zip(parts[::2], parts[1::2], strict=True):
            if text:
                yield line, _clean(text), True
            line += b"\n" in end
        if len(rest) > _MAX_PIECE:
            rest = rest[:_MAX_PIECE]
    if rest:
        yield line, _clean(rest), False


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
        """Take a piece of output that is not a row."""
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


def _number_rows(columns: LogColumns, run: RunData) -> None:
    """Give steps to the rows that have none: k-th row x steps a row, from the bars; else from even epochs."""
    bars, begun, _, epochs = (columns.take(key) for key in ("_bar", "_begun", "_part", "epoch"))
    if any(step != columns.NO_STEP for step in columns.steps):
        return
    processes = 1 if epochs is None or bars is not None else _processes(epochs, columns.values("lr"))
    if processes > 1 and epochs is not None:
        columns.average(processes)
        run.problems.append(f"{run.path.name}: {processes} processes print each row: their mean is used")
        epochs = epochs[::processes][: len(columns)]
    n = len(columns)
    if bars is not None and begun is not None and np.isfinite(bars).all():
        since = np.arange(1, n + 1, dtype=np.float64)
        for start in np.unique(begun):  # a resumed run goes on at another step
            here = np.flatnonzero(begun == start)
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
            steps = np.rint(epochs / unit)
            columns.set_steps((steps + (1 if steps[0] == 0 else 0)).astype(np.int64))


_LEAST_GROUPS = 5


def _processes(epochs: np.ndarray, rates: np.ndarray | None) -> int:
    """How many processes printed each row: every epoch and learning rate stands in equally many neighbouring rows, the first as often as all.

    Rounded epochs of one process are repeated too, but the first of them about half as often as the rest.
    """
    if not np.isfinite(epochs).all() or len(epochs) < 2 * _LEAST_GROUPS or (np.diff(epochs) < 0).any():
        return 1
    new = np.diff(epochs) != 0
    if rates is not None and np.isfinite(rates).all():
        new |= np.diff(rates) != 0
    counts = np.diff(np.concatenate(([0], np.flatnonzero(new) + 1, [len(epochs)])))
    whole = counts[:-1] if counts[-1] < counts[0] else counts  # the last step may not be printed by all yet
    return int(counts[0]) if len(counts) >= _LEAST_GROUPS and (whole == counts[0]).all() else 1


def metric_rows(path: Path, steps: _Steps, problems: Problems, ending: Ending) -> Iterator[Row]:
    """Every printed row of metrics, values as text: dictionaries and verl's lines; where a log has neither, names and numbers in text."""
    if not _is_structured(path):
        yield from _said_rows(path, problems, ending)
        return
    before: tuple[int | None, dict[str, str]] | None = None
    verl: tuple[int, int, dict[str, str]] | None = None  # the last line, held back: it may be cut
    verl_keys: list[str] = []
    rank: str | None = None
    samples = 0
    with open_stream(path) as file:
        for line, text, whole in pieces(file):
            steps.see(text)
            ending.see(line, text)
            found = _VERL.search(text) if "step:" in text else None
            if found is not None:
                if verl is not None:
                    verl_keys = list(verl[2])
                    yield verl
                verl = line, int(found[1]), dict(_verl_pairs(found[2], whole))
                ending.row(line)
                continue
            if "{" not in text:
                continue
            who = _RANK.match(text)
            for step, row in _dictionary_rows(text):
                if not _is_metrics(row):
                    samples += 1
                    continue
                if who is not None:  # every process prints its own: the first is read
                    rank = rank if rank is not None else who[1]
                    if who[1] != rank:
                        continue
                if (step, row) == before:  # every process prints it, or the terminal is captured twice
                    continue
                before = (step, row)
                ending.row(line)
                yield line, step, row | steps.beside()
    if verl is not None:
        if len(verl[2]) < len(verl_keys) and list(verl[2]) == verl_keys[: len(verl[2])]:
            problems.note(f"line {verl[0]}, the last, is incomplete: left out")
        else:
            yield verl
    if samples:
        problems.note(f"{samples:,} printed dictionaries without a loss, gradient or step were read as samples, not as rows")


def _said_rows(path: Path, problems: Problems, ending: Ending) -> Iterator[Row]:
    """Rows of a log without metric dictionaries: `rl_loss: -0.01, reward: .5` lines, or blocks of `• Avg Reward: 0.5` below a step."""
    block: dict[str, str] = {}
    begun, block_step = 0, None
    samples = 0
    with open_stream(path) as file:
        for line, text, whole in pieces(file):
            ending.see(line, text)
            row = _named_row(text)
            if _is_training(row):
                if not whole:
                    problems.note(f"line {line}, the last, is incomplete: left out")
                    continue
                ending.row(line)
                yield line, _step_in(text), row
                continue
            samples += "{" in text and any(True for _ in dictionaries(text))
            bullet = _BULLET.match(text)
            if bullet is not None and whole:
                block.setdefault(bullet[1].strip(), bullet[2])
                continue
            step = _step_in(text)
            if step is not None and step != block_step:
                if _is_training(block):
                    ending.row(line)
                    yield begun, block_step, block
                block, begun, block_step = {}, line, step
        if _is_training(block):
            yield begun, block_step, block
    if samples:
        problems.note(f"{samples:,} printed dictionaries without a loss, gradient or step were read as samples, not as rows")


def _verl_pairs(text: str, whole: bool) -> Iterator[tuple[str, str]]:
    """`actor/kl_loss:0.1 - critic/score/mean:0.5`; of a line that is not whole the last value may be cut, and is left out."""
    parts = text.split(" - ")
    for part in parts if whole else parts[:-1]:
        key, _, value = part.rpartition(":")
        if key:
            yield key.strip(), value


def _dictionary_rows(text: str) -> Iterator[tuple[int | None, dict[str, str]]]:
    """(step, row) of the dictionaries in a line."""
    printed_step = _GLOBAL.search(text) if "lobal step" in text else _BEFORE_DICT.search(text[: text.index("{")])
    for row in dictionaries(text):
        yield int(printed_step[1]) if printed_step else step_of(row, _STEPS), row


def _named_row(text: str) -> dict[str, str]:
    """The `name: number` pairs of a line, those of dictionaries behind a name among them; empty if they are none or one."""
    if _HINT.search(text) is None:
        return {}
    row = _pairs(_NAMED_DICT.sub(" ", text))
    if "{" in text and row:
        for key, body in _NAMED_DICT.findall(text):
            for inner in dictionaries(body):
                row |= _flattened(key, inner)
    return row if len(row) >= 2 else {}


def _flattened(key: str, inner: dict[str, str]) -> dict[str, str]:
    """A dictionary behind a name: of a total and a count the mean, else `name//key`, which is no metric's name."""
    found = numbers_of({key: inner})
    return {name: repr(value) for name, value in found.items()}


def _pairs(text: str) -> dict[str, str]:
    return {key.strip(): value for key, value in _NAMED.findall(text[:4_000])}


def _step_in(text: str) -> int | None:
    found = _OF_STEP.search(text)
    return int(found[1]) if found is not None else None


def _is_metrics(row: dict[str, str]) -> bool:
    """Does a row have something of an update, or its step?"""
    if any(key in row for key in _STEPS):
        return True
    return any(family(key) in _UPDATES or not _UPDATING.isdisjoint(words(key)) for key in row)


def _is_training(row: dict[str, str]) -> bool:
    """Is a row of `key: value` text one of training: an update, and a reward or a loss?"""
    ours = {family(key) for key in row}
    return bool(ours & {"loss", "loss_policy", "reward_mean"}) and _is_metrics(row)


def looks_printed(path: Path) -> bool:
    """Whether there is a row of training metrics within the first megabytes."""
    return _is_structured(path) or any(True for _ in _said_rows(path, Problems(), Ending()))


def _is_structured(path: Path) -> bool:
    """Is there a dictionary of metrics, or a line of verl's, within the first megabytes?"""
    seen = 0
    with open_stream(path) as file:
        for _, text, _ in pieces(file):
            if "step:" in text and (found := _VERL.search(text)) is not None and " - " in found[2] and "/" in found[2]:
                return True
            if "{" in text and any(_MARKS & row.keys() and _is_metrics(row) for row in dictionaries(text)):
                return True
            seen += len(text) + 1
            if seen > _LOOKED_AT:
                return False
    return False


def read_console(path: Path) -> RunData:
    """A console log."""
    run, problems, steps, ending = new_run(path, "console"), Problems(), _Steps(), Ending()
    fill(run, metric_rows(path, steps, problems, ending), problems, settle=_number_rows)
    ending.tell([*run.earlier, run])
    if steps.total:
        run.config["training.steps"] = steps.total
    run.problems += problems.lines(path.name)
    return run
