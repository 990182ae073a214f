"""What every study of a run's CoTs shares: fresh CoTs of one checkpoint, read again in many variants.

A *variant* is a CoT as a reader might get it: intact, damaged, replaced, or with the question visible. CoTs and readings
are kept as they come, so that an interrupted study continues and no study draws or reads again what another one has.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from markovlm.analysis.scoring import Scored, Variant, encode_cot, read_again, read_variants
from markovlm.errors import UserError
from markovlm.evaluation.evaluate import How, how_evaluated
from markovlm.evaluation.run import label_of
from markovlm.evaluation.store import Label
from markovlm.models.memory import chunks
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import clean, read_rows, replace_whole, writing
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target
from markovlm.statistics import cluster_mean_ci
from markovlm.studies.files import check_result
from markovlm.tasks.base import LIKELIHOOD, Example

Counting = Callable[[str, int], Any]
_ROWS_KEPT = 4  # batches after which readings are written down
Cells = Mapping[str, tuple[str, ...]]  # list of a result -> the keys that tell its rows apart
CotKey = tuple[str, int]  # question id, number of the CoT among those of its question


@dataclass(frozen=True, slots=True)
class StudyCot:
    """One CoT, drawn for the studies: another draw than training and evaluation saw."""

    example: Example
    number: int  # among the CoTs of its question
    ids: tuple[int, ...]
    text: str
    ended: bool  # by itself, not by the budget

    @property
    def key(self) -> CotKey:
        return self.example.id, self.number


@dataclass(slots=True)
class Reader:
    """A loaded model that reads variants, and the file that keeps its results."""

    setup: Setup
    frozen: bool  # reads with the adapter off
    path: Path
    name: str = ""  # for the progress display
    counting: Counting | None = None
    on_batch: Callable[[Sequence[Variant], Sequence[Variant]], None] | None = None  # told what a batch has read, and what is left
    _kept: dict[tuple[Hashable, ...], Scored] | None = None
    _old: set[tuple[Hashable, ...]] = field(default_factory=set[tuple[Hashable, ...]])  # of those kept: read by another extractor

    def read(self, variants: Sequence[Variant], doing: str) -> list[Scored]:
        """Read each variant, in order; what is kept already is not read again."""
        todo = self.missing(variants)
        kept = self._known()
        todo.sort(key=lambda v: (len(v.trunk), v.trunk, v.conditioning))  # what shares a CoT is read together
        done = 0
        with bar(self.counting, f"{self.name}: {doing}", len(todo)) as advance:
            for batch in _lots(todo, self.setup.config.evaluation.batch_size, fresh=not kept):
                scored = self._read(batch)
                done += len(batch)
                if self.on_batch is not None:
                    self.on_batch(batch, todo[done:])
                kept |= {variant.key: one for variant, one in zip(batch, scored, strict=True)}
                self._write(batch, scored)
                advance(len(batch))
        return [kept[variant.key] for variant in variants]

    def missing(self, variants: Sequence[Variant]) -> list[Variant]:
        """Those that would have to be read, each once."""
        kept = self._known()
        wanted: dict[tuple[Hashable, ...], Variant] = {}
        for variant in variants:  # of those that come to the same, the first; but one that asks for an answer gets it
            if variant.key not in wanted or (variant.write and not wanted[variant.key].write):
                wanted[variant.key] = variant
        for key in self._old & wanted.keys():
            kept[key] = read_again(self.setup, wanted[key], kept[key])
        self._old -= wanted.keys()
        extracts = bool(self.setup.task.extractors)
        return [v for key, v in wanted.items() if key not in kept or (v.write and extracts and kept[key].answer is None)]

    @property
    def _extractor(self) -> str | None:
        return next(iter(self.setup.task.extractors), None)

    def _known(self) -> dict[tuple[Hashable, ...], Scored]:
        if self._kept is not None:
            return self._kept
        self._kept, by = _kept_readings(self.path)
        self._old = {key for key, method in by.items() if self._kept[key].answer is not None and method != self._extractor}
        if self._extractor in (None, LIKELIHOOD):  # nothing that the text could be read again by
            for key in self._old:
                del self._kept[key]
            self._old = set()
        return self._kept

    @torch.no_grad()
    def _read(self, variants: Sequence[Variant]) -> list[Scored]:
        with self.setup.lm.frozen() if self.frozen else self.setup.lm.merged():
            return read_variants(self.setup, self.setup.sampler(), variants)

    def _write(self, variants: Sequence[Variant], scored: Sequence[Scored]) -> None:
        rows = [
            {"id": variant.example.id, "cot": variant.number, "variant": variant.name, "conditioning": variant.conditioning}
            | {"target": variant.example.answer, "text": self.setup.prompter.text(variant.ids), "digest": variant.digest}
            | asdict(one)
            | ({} if one.answer is None else {"extractor": self._extractor})
            for variant, one in zip(variants, scored, strict=True)
        ]
        open_folder(self.path.parent).append(self.path.name, rows)


def _lots(todo: Sequence[Variant], rows: int, *, fresh: bool) -> Iterator[Sequence[Variant]]:
    """At first a batch, by which it is known how long the rest takes, then several at a time; what is left after an interruption in the same
    lots, since those that are read together may round otherwise than in other company."""
    first = rows if fresh else 0
    yield from chunks(todo[:first], rows)
    yield from chunks(todo[first:], _ROWS_KEPT * rows)


@dataclass(slots=True)
class Study:
    """One checkpoint, loaded, with its CoTs. Everything it finds is kept under `folder`."""

    target: Target
    setup: Setup
    label: Label
    cots: list[StudyCot]
    folder: Path
    reader: Reader
    notes: tuple[str, ...] = ()
    same_source: bool = True  # the folder's earlier results are about CoTs drawn as these were; not so where others wrote them

    @property
    def how(self) -> How:
        return self.label.how

    @property
    def conditioning(self) -> str:
        """What this model's reader sees beside the CoT."""
        return self.how.conditioning

    @property
    def questions(self) -> list[Example]:
        return list({cot.example.id: cot.example for cot in self.cots}.values())

    def read(self, variants: Sequence[Variant], doing: str) -> list[Scored]:
        """As `Reader.read`, by this checkpoint itself."""
        return self.reader.read(variants, doing)

    def reread(self, name: str, texts: Sequence[str], *, conditioning: str | None = None) -> list[Scored]:
        """One text for each of `cots`, in their order, read in the CoT's place: ln pi(gold answer | text) and the greedy answer of each.

        `name` says what was done to the CoTs. `conditioning`: "markovian" hides the question, "non_markovian" shows it; default as in training.
        Raises ValueError unless there are as many texts as CoTs.
        """
        seen = conditioning or self.conditioning
        pairs = [(cot, encode_cot(self.setup.prompter, text)) for cot, text in zip(self.cots, texts, strict=True)]
        return self.read([Variant(cot.example, cot.number, name, ids, cot.ids, seen) for cot, ids in pairs], name)

    def estimate(self, values: Sequence[float | None], within: tuple[float, float] | None = None) -> dict[str, Any] | None:
        """Mean of one value for each of `cots` (None: left out), its 95 % bootstrap interval over questions: {"mean", "ci95"}; None of none."""
        return estimate_some(values, [cot.example.id for cot in self.cots], self.how.seed, within)

    def close(self) -> None:
        """Release the model; results can still be made and written. Closing twice does nothing."""
        if hasattr(self, "setup"):
            del self.setup, self.reader
            gc.collect()  # a model may be part of a cycle, and the next one needs the memory now

    def header(self, kind: str) -> dict[str, Any]:
        """The first keys of every result."""
        return {
            "kind": kind,
            "run": self.target.name,
            "checkpoint": self.target.checkpoint,
            "step": self.target.step or 0,
            "split": self.label.split,
            "task": self.label.task,
            "model": self.label.model,
            "conditioning": self.conditioning,
            "n": len(self.questions),
            "cots_per_question": 1 + max(cot.number for cot in self.cots),
            "seed": self.how.seed,
            "notes": list(self.notes),
        }

    def write(self, name: str, result: Mapping[str, Any], cells: Cells | None = None, manner: Sequence[str] = ()) -> Path:
        """Keep a result where `markovlm report` finds it; with `cells` (maybe none), beside what earlier calls found (`with_earlier`)."""
        path = open_folder(self.folder).path / f"{name}-{self.label.file.removesuffix('.jsonl')}.json"
        whole = clean(result)
        if cells is not None and self.same_source:
            whole = with_earlier(kept_result(path), whole, cells, manner)
        check_result(whole)
        replace_whole(path, json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False).encode())
        return path


def open_study(
    target: Target,
    setup: Setup,
    *,
    split: str,
    limit: int | None,
    cots: int,
    folder: Path,
    counting: Counting | None = None,
    examples: Sequence[Example] | None = None,
) -> Study:
    """Questions of `split` (or `examples`), and `cots` CoTs of each, drawn anew or found from an earlier study.

    Raises UserError for a split that is not there or too few questions to study.
    """
    loaded = target.load(setup, split, limit) if examples is None else None
    asked = list(loaded.examples if loaded else examples or ())
    if not asked:
        raise UserError(f"{target.name}: no questions in the {split} split")
    how = how_evaluated(setup.config, setup.prompter)
    label = label_of(target, setup, split, how)
    reader = Reader(setup, how.reader == "frozen", folder / f"readings-{label.file}", target.checkpoint, counting)
    study = Study(target, setup, label, [], folder, reader, loaded.notes if loaded else ())
    study.cots = _draw(study, asked, cots, counting)
    return study


def _draw(study: Study, examples: Sequence[Example], count: int, counting: Counting | None) -> list[StudyCot]:
    """CoT `number` of a question comes from the stream (seed, "study", question, number), whatever else is drawn."""
    file = f"cots-{study.label.file}"
    known = _kept_cots(study.folder / file, examples)
    todo = [(example, number) for example in examples for number in range(count) if (example.id, number) not in known]
    how, setup = study.how, study.setup
    decoding = Decoding(how.cot_tokens, how.temperature, how.fixed_length, how.stop)
    with bar(counting, f"{study.target.checkpoint}: writing CoTs", len(todo)) as advance:
        for batch in chunks(todo, setup.config.evaluation.batch_size):
            requests = [
                SampleRequest(setup.prompter.cot_prompt(example), ((how.seed, "study", example.id, number),))
                for example, number in batch
            ]
            drawn = [group[0] for group in setup.sampler().sample(requests, decoding)]
            fresh = [
                StudyCot(example, number, cot.ids, setup.prompter.text(cot.ids), cot.ended)
                for (example, number), cot in zip(batch, drawn, strict=True)
            ]
            known |= {cot.key: cot for cot in fresh}
            open_folder(study.folder).append(file, [_cot_row(cot) for cot in fresh])
            advance(len(batch))
    return [known[example.id, number] for example in examples for number in range(count)]


# ------------------------------------------------------------------------------------------------------------ kept


def open_folder(path: Path) -> RunDirectory:
    """The place of results, made if need be."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return RunDirectory(path)


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file in which results are kept as they come; none where it is not there yet."""
    RunDirectory(path.parent).mend_last_line(path.name)
    return read_rows(path)


def _cot_row(cot: StudyCot) -> dict[str, Any]:
    example = cot.example
    row = {"id": example.id, "cot": cot.number, "question": example.question, "gold": example.answer}
    return row | {"text": cot.text, "ended": cot.ended, "ids": list(cot.ids)}


def _kept_cots(path: Path, examples: Sequence[Example]) -> dict[CotKey, StudyCot]:
    asked = {(example.id, example.question, example.answer): example for example in examples}
    found: dict[CotKey, StudyCot] = {}
    for row in kept_rows(path):
        example = asked.get((row["id"], row["question"], row["gold"]))
        if example is not None:
            cot = StudyCot(example, row["cot"], tuple(row["ids"]), row["text"], row["ended"])
            found[cot.key] = cot
    return found


def _kept_readings(path: Path) -> tuple[dict[tuple[Hashable, ...], Scored], dict[tuple[Hashable, ...], str | None]]:
    """By key: the readings, and the extractors that read them (None: of a version that kept no name, or no answer was written)."""
    found: dict[tuple[Hashable, ...], Scored] = {}
    by: dict[tuple[Hashable, ...], str | None] = {}
    for row in kept_rows(path):
        key = (row["id"], row["cot"], row["conditioning"], row["target"], row["digest"])
        found[key] = Scored(row["logprob"], row["answer"], row["extracted"], row["correct"], row.get("answer_ended"))
        by[key] = row.get("extractor")
    return found, by


def kept_result(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


_SAME = ("kind", "run", "checkpoint", "split", "task", "model", "conditioning", "cots_per_question", "seed", "against")
OTHERS = "others"  # results in other manners, whole, in a result


def with_earlier(old: Mapping[str, Any], new: Mapping[str, Any], cells: Cells, manner: Sequence[str] = ()) -> dict[str, Any]:
    """A result together with the rows of an earlier one that it lacks; for a cell in both, the one on more questions (the new one if
    equal).

    Everything else comes from the one on more questions. Results that differ in the keys `manner` are not joined: the new one comes
    first, the others are kept in a list under `others`. Results on other CoTs are dropped.
    """
    if any(old.get(key) != new.get(key) for key in _SAME) or not isinstance(old.get("n"), int):
        return dict(new)

    def made(result: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(result.get(key) for key in manner)

    earlier = {made(one): one for one in [*old.get(OTHERS, ()), {k: v for k, v in old.items() if k != OTHERS}]}
    same = earlier.pop(made(new), None)
    joined = dict(new) if same is None else _joined(same, new, cells)
    return joined | {OTHERS: list(earlier.values())} if earlier else joined


def _joined(old: Mapping[str, Any], new: Mapping[str, Any], cells: Cells) -> dict[str, Any]:
    more, fewer = (old, new) if old["n"] > new["n"] else (new, old)
    joined = dict(more)
    for name, key in cells.items():
        rows = more.get(name) or []
        known = {tuple(row.get(part) for part in key) for row in rows}
        joined[name] = [*rows, *(row for row in fewer.get(name) or [] if tuple(row.get(part) for part in key) not in known)]
    return joined


@contextmanager
def bar(counting: Counting | None, label: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar where there is something to do and somebody to see it; gives what moves it on."""
    with counting(label, total) if counting and total else nullcontext() as advance:
        yield advance or (lambda _: None)


# ------------------------------------------------------------------------------------------------------- estimates


RATE, CHANGE = (0.0, 1.0), (-1.0, 1.0)  # what a share of right answers can be, and what it can change by


def estimate(
    values: Sequence[float], clusters: Sequence[Hashable], seed: int, within: tuple[float, float] | None = None
) -> dict[str, Any]:
    """{"mean", "ci95"}: percentile bootstrap over questions, all CoTs of a question together. `within` as in `cluster_mean_ci`."""
    found = cluster_mean_ci(values, clusters, seed, within=within)
    return clean({"mean": found.mean, "ci95": [found.low, found.high]})


def minus(ours: float | None, theirs: float | None) -> float | None:
    """The difference, where both are there."""
    return None if ours is None or theirs is None else ours - theirs


def estimate_some(
    values: Sequence[float | None], clusters: Sequence[Hashable], seed: int, within: tuple[float, float] | None = None
) -> dict[str, Any] | None:
    """As `estimate`, of the values that are not None; None if there is none (answers are not extracted)."""
    there = [(value, cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    return estimate([value for value, _ in there], [cluster for _, cluster in there], seed, within) if there else None


def estimates(scored: Sequence[Scored], clusters: Sequence[Hashable], seed: int) -> dict[str, Any]:
    """{"logprob", "accuracy"} of what was read."""
    return {
        "logprob": estimate([one.logprob for one in scored], clusters, seed),
        "accuracy": estimate_some([one.right for one in scored], clusters, seed, RATE),
    }


def gains(ours: Sequence[Scored], theirs: Sequence[Scored], clusters: Sequence[Hashable], seed: int) -> dict[str, Any]:
    """The same of how much more one reading has than the other, pair by pair."""
    both = list(zip(ours, theirs, strict=True))
    return {
        "logprob": estimate([a.logprob - b.logprob for a, b in both], clusters, seed),
        "accuracy": estimate_some([minus(a.right, b.right) for a, b in both], clusters, seed, CHANGE),
    }


def share_known(values: Sequence[bool | None], clusters: Sequence[Hashable], seed: int) -> dict[str, Any] | None:
    """As `estimate_some` of what is true, with how many clusters have a value: {"mean", "ci95", "n"}."""
    found = estimate_some([None if value is None else float(value) for value in values], clusters, seed, RATE)
    return found and found | {"n": len({cluster for value, cluster in zip(values, clusters, strict=True) if value is not None})}
