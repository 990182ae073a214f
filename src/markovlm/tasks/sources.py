"""From a source of rows (original files or the Hub) to the examples of a split: what all file-based tasks share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

from markovlm.errors import UserError
from markovlm.tasks.base import AnswerType, Example, HubSource, Loaded, LoadRequest, PromptKind
from markovlm.tasks.files import SUFFIXES, data_suffix, read_rows
from markovlm.tasks.folds import WHOLE, cut_for, take, without_overlap
from markovlm.tasks.rows import BadRow, DataRow, RowError

SPLIT_WORDS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}

_UNREACHABLE = (
    "localentrynotfound",
    "couldn't reach",
    "connect",
    "offline",
    "resolve",
    "name resolution",
    "proxy",
    "timed out",
    "timeout",
)

Parse = Callable[[DataRow], Example | None]
Rows = Iterable[DataRow | BadRow]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A task whose examples are rows of files or of a Hub dataset. Implements `tasks.base.Task`.

    `parse` turns a row into an example whose id is empty or the row's own name; it raises RowError where the row does
    not fit and returns None if the row is not asked for. `adapt` makes the variant that task options describe,
    `finish` orders, or makes over, the examples of a split before a limit cuts them.
    """

    name: str
    summary: str
    prompt_kind: PromptKind
    answer_type: AnswerType
    default_cot_tokens: int
    max_answer_tokens: int
    extractors: tuple[str, ...]
    hub: HubSource | None
    licence: str
    parse: Parse
    splits: tuple[str, ...] = ("train", "dev", "test")
    choices: int = 0  # that a question usually has; 0 where it has none: guessing is right in one of them
    option_help: Mapping[str, str] = field(default_factory=dict[str, str])
    adapt: Callable[[Dataset, Mapping[str, Any]], Dataset] | None = None
    split_words: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SPLIT_WORDS)  # found in file names
    other_words: frozenset[str] = frozenset()  # a file with one of these in its name belongs to another task
    suffixes: tuple[str, ...] = SUFFIXES
    read_file: Callable[[Path], Rows] = read_rows
    read_hub: Callable[[Rows], Rows] = iter  # where one example spans several rows of the Hub
    finish: Callable[[list[Example], LoadRequest], Loaded] = field(default=lambda examples, _: Loaded(examples))

    def configured(self, options: Mapping[str, Any]) -> Dataset:
        """This task with its options applied. Raises UserError on an unknown option."""
        check_options(self.name, options, self.option_help)
        return self.adapt(self, options) if self.adapt and options else self

    def load(self, request: LoadRequest) -> Loaded:
        return _load(self.configured(request.options), request)


class DataSource(Protocol):
    """Rows by split."""

    @property
    def label(self) -> str: ...

    @property
    def available(self) -> frozenset[str]: ...

    def rows(self, split: str) -> Iterator[DataRow | BadRow]: ...


@dataclass(frozen=True, slots=True)
class Files:
    """Original files: the files of each split, in order."""

    label: str
    paths: Mapping[str, tuple[Path, ...]]
    read: Callable[[Path], Rows]

    @property
    def available(self) -> frozenset[str]:
        return frozenset(self.paths)

    def rows(self, split: str) -> Iterator[DataRow | BadRow]:
        for path in self.paths[split]:
            yield from self.read(path)


@dataclass(frozen=True, slots=True)
class Hub:
    """A dataset of the Hugging Face Hub."""

    source: HubSource
    read: Callable[[Rows], Rows]

    @property
    def label(self) -> str:
        return self.source.path + (f" ({self.source.name})" if self.source.name else "")

    @property
    def available(self) -> frozenset[str]:
        return frozenset(self.source.splits)

    def rows(self, split: str) -> Iterator[DataRow | BadRow]:
        yield from self.read(self._records(self.source.splits[split]))

    def _records(self, hub_split: str) -> Iterator[DataRow]:
        for index, values in enumerate(load_from_hub(self.source, hub_split)):
            where = f"{self.source.path}[{hub_split}]:{index}"
            yield DataRow(where, index, self.source.name or "", values)


def check_options(task: str, options: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Raises UserError if an option is not one of `known`."""
    for name in options:
        if name not in known:
            there = f"options: {', '.join(known)}" if known else "it has no options"
            raise UserError(f"task {task} has no option {name!r}{close_match(name, known)}; {there}")


def check_request(task: str, splits: tuple[str, ...], request: LoadRequest) -> None:
    """Raises UserError if the task has no such split, or the limit is not a positive number."""
    if request.split not in splits:
        raise UserError(f"task {task} has no split {request.split!r}; splits: {', '.join(splits)}")
    if request.limit is not None and request.limit < 1:
        raise UserError(f"limit {request.limit}: must be at least 1")


def close_match(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'gsm8k'?)`, or nothing."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def find_files(directory: Path, dataset: Dataset) -> Files:
    """The data files of each split under `directory`, recognised by words in their names. Raises UserError if there is none."""
    paths = [
        path
        for path in sorted(directory.rglob("*"))
        if data_suffix(path) in dataset.suffixes and path.is_file() and not dataset.other_words & _words(path, directory)
    ]
    found = {
        split: files
        for split, words in dataset.split_words.items()
        if (files := tuple(path for path in paths if _words(path, directory) & set(words)))
    }
    if not found and len(paths) == 1:
        found = {WHOLE: (paths[0],)}
    if not found:
        what = f"{len(paths)} data files, none named after a split" if paths else f"no data file ({', '.join(dataset.suffixes)})"
        raise UserError(f"{directory}: {what}; expected names with train, dev or test in them, or a single file")
    return Files(str(directory), found, dataset.read_file)


def open_source(dataset: Dataset, request: LoadRequest) -> DataSource:
    """Where the rows of `request` come from. Raises UserError if there is nothing."""
    if request.data is None:
        hub = dataset.hub if request.hub is None else with_splits(request.hub, dataset.split_words)
        if hub is None:
            raise UserError(f"task {dataset.name} needs your own file: give --data FILE (or --data.hub ORG/NAME)")
        return Hub(hub, dataset.read_hub)
    if request.columns and dataset.suffixes == SUFFIXES:
        dataset = replace(dataset, read_file=read_rows)  # who names columns has a header
    if request.data.is_dir():
        return find_files(request.data, dataset)
    if not request.data.exists():
        raise UserError(f"{request.data}: no such file or directory")
    split = WHOLE if request.disjoint else request.split  # a single file is taken whole: the split only names it
    return Files(str(request.data), {split: (request.data,)}, dataset.read_file)


def with_splits(source: HubSource, split_words: Mapping[str, tuple[str, ...]]) -> HubSource:
    """The splits of a dataset that only the Hub knows, recognised by their names. Raises UserError if none is known."""
    names = _asked(source, lambda library: library.get_dataset_split_names(source.path, source.name))
    splits = {ours: next(n for n in names if n in words) for ours, words in split_words.items() if set(words) & set(names)}
    if not splits:
        raise UserError(f"{source.path}: its splits are {', '.join(names)}; none is named train, validation or test")
    return replace(source, splits=splits)


def load_from_hub(source: HubSource, hub_split: str) -> Iterable[dict[str, Any]]:
    """Rows of one split. Raises UserError if the library, the network, the dataset or the permission is missing."""
    return _asked(source, lambda library: library.load_dataset(source.path, source.name, split=hub_split))


def _asked(source: HubSource, question: Callable[[Any], Any]) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{source.path}: reading from the Hub needs the `datasets` package; or give --data PATH") from error
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # retries while the Hub can't be reached; the error says it once
    try:
        return question(cast(Any, datasets))  # the overloads of load_dataset are partly untyped
    except Exception as error:  # the library raises a dozen unrelated types; all mean: this source cannot be read
        raise UserError(f"{source.path}: {_hub_reason(error)}; give --data PATH with the original files") from error


def _hub_reason(error: Exception) -> str:
    kind, text = type(error).__name__, " ".join(str(error).split())
    links = [error, error.__cause__, error.__context__]
    chain = " ".join(f"{type(link).__name__} {link}" for link in links if link is not None).lower()
    if any(word in chain for word in _UNREACHABLE):  # first: what is not in the cache of an unreachable Hub is "not found" too
        return "the Hub cannot be reached from here, and the dataset is not in the local cache"
    if "gated" in chain or "401" in chain or "403" in chain:
        return "the dataset is gated or private; accept its terms on the Hub and run `hf auth login`"
    if "config" in chain and ("not found" in chain or "missing" in chain or "available" in chain):
        return f"the subset does not exist, or one is needed ({text[:200]}); see data.hub_subset"
    if "notfound" in chain or "doesn't exist" in chain:
        return "not found on the Hub"
    if isinstance(error, OSError):
        return "the Hub cannot be reached from here, and the dataset is not in the local cache"
    return f"cannot be loaded from the Hub ({kind}: {text[:160]})"


def _words(path: Path, directory: Path) -> set[str]:
    relative = path.relative_to(directory).with_suffix("")
    return set(re.split(r"[^a-z0-9]+", str(relative).lower()))


def _load(dataset: Dataset, request: LoadRequest) -> Loaded:
    check_request(dataset.name, dataset.splits, request)
    source = open_source(dataset, request)
    examples, skipped, notes = _examples_of(dataset, source, request)
    for split in _held_out_from(request, source):
        others, _, _ = _examples_of(dataset, source, replace(request, split=split, strict=False))
        kept = without_overlap(examples, others)
        if len(kept) < len(examples):
            notes = (*notes, f"{request.split}: questions removed because they are also in {split}: {len(examples) - len(kept)}")
        examples = kept
    done = dataset.finish(examples, request)
    if not done.examples:
        raise UserError(f"{source.label}: no usable example in the {request.split} split{_first(skipped + done.skipped)}")
    return Loaded(done.examples[: request.limit], skipped + done.skipped, notes + done.notes)


def _held_out_from(request: LoadRequest, source: DataSource) -> tuple[str, ...]:
    """The splits whose questions must not occur in the one asked for."""
    if request.split == "train":
        wanted = ("test", "dev") if request.disjoint else ("test",)
    else:
        wanted = ("test",) if request.split == "dev" and request.disjoint else ()
    if source.available <= {WHOLE} or len(source.available) == 1:
        return ()  # cut out of one file by question: disjoint already
    return tuple(split for split in wanted if split in source.available or request.disjoint)


def _examples_of(
    dataset: Dataset, source: DataSource, request: LoadRequest
) -> tuple[list[Example], tuple[str, ...], tuple[str, ...]]:
    cut = cut_for(request.split, source.available, request.disjoint, source.label)
    rows = _renamed(source.rows(cut.origin), request.columns)
    examples, skipped = _parse_rows(dataset, rows, f"{dataset.name}/{cut.origin}", request.strict)
    notes = () if cut.is_all else (f"{request.split}: {cut} in {source.label}, always the same, chosen by a hash",)
    return take(examples, cut), skipped, notes


def _renamed(rows: Iterable[DataRow | BadRow], columns: Mapping[str, str]) -> Iterable[DataRow | BadRow]:
    """Rows whose columns are called what the task calls them; a column that is not there is a row that does not fit."""
    return rows if not columns else (row if isinstance(row, BadRow) else _rename(row, columns) for row in rows)


def _rename(row: DataRow, columns: Mapping[str, str]) -> DataRow | BadRow:
    values = dict(row.values)
    for ours, theirs in columns.items():
        found = {name.strip(): row.get(name.strip()) for name in theirs.split(",")}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            there = ", ".join(map(repr, list(row.values)[:12])) or "nothing"
            return BadRow(row.where, f"data.columns.{ours}: no {missing[0]!r}; the row has {there}")
        values[ours] = next(iter(found.values())) if len(found) == 1 else list(found.values())
    return replace(row, values=values)


def _parse_rows(
    dataset: Dataset, rows: Iterable[DataRow | BadRow], prefix: str, strict: bool
) -> tuple[list[Example], tuple[str, ...]]:
    """Examples with ids `prefix/…`, each question once per id, and the rows that do not fit."""
    examples: dict[str, Example] = {}
    skipped: list[str] = []
    for row in rows:
        example = _parse_row(dataset.parse, row)
        if isinstance(example, BadRow):
            if strict:
                raise UserError(str(example))
            skipped.append(str(example))
        elif example is not None:
            identity = f"{prefix}/{example.id or cast(DataRow, row).index}"
            if identity in examples:
                identity += f"+{len(examples)}"
            examples[identity] = replace(example, id=identity)
    return list(examples.values()), tuple(skipped)


def _parse_row(parse: Parse, row: DataRow | BadRow) -> Example | BadRow | None:
    if isinstance(row, BadRow):
        return row
    try:
        return parse(row)
    except RowError as error:
        return BadRow(row.where, str(error))


def _first(skipped: tuple[str, ...]) -> str:
    return f": {len(skipped)} rows do not fit, the first: {skipped[0]}" if skipped else ""
