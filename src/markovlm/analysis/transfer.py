"""Do other models understand the CoT? Each checkpoint's CoTs, as text, read by models that did not write them.

The readers see the CoT and never the question, each through its own tokenizer and prompts. Their curves over training beside
the actor's own are the paper's evidence that the CoT is text and not a private code. The control is the base
model's CoTs, read by the same readers on the same questions.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats as scipy_stats

from markovlm.analysis.fragility import RAW, whole
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import Counting, Reader, Study, StudyCot, estimates, gains, open_study
from markovlm.config import RunConfig, flatten, nest
from markovlm.errors import UserError
from markovlm.evaluation.run import label_of, prepared
from markovlm.evaluation.store import Label
from markovlm.models.load import load_tokenizer
from markovlm.rollouts.prompter import build_prompter
from markovlm.runs.asking import task_of
from markovlm.runs.setup import Setup, load_examples
from markovlm.runs.targets import BASE, Target, open_targets
from markovlm.tasks.base import Example, Task

ACTOR = "actor"  # the checkpoint reading its own CoTs
_CELLS = {"readers": ("reader",), "points": ("checkpoint", "reader"), "correlation": ("reader",)}  # of a result
_EXACT = 7  # checkpoints up to which the p of a rank correlation is computed over all orders
# settings that a reader takes over from the run
_QUESTIONS = ("task", "task_options.", "data.", "loading.device", "objective.answer_end", "prompt.mention_budget")

stats: Any = scipy_stats


@dataclass(frozen=True, slots=True)
class Written:
    """The CoTs of one checkpoint and what it reads from them itself."""

    checkpoint: str
    step: int
    label: Label
    cots: list[StudyCot]
    own: list[Scored]


@dataclass(frozen=True, slots=True)
class Curve:
    """One reader's results on every checkpoint's CoTs."""

    reader: str
    model: str
    prompt_style: str
    read: dict[str, list[Scored]]  # checkpoint -> one a CoT


def transfer(
    targets: Sequence[Target],
    readers: Sequence[str],
    *,
    split: str,
    limit: int | None,
    cots: int,
    folder: Path,
    counting: Counting | None = None,
) -> tuple[dict[str, Any], Path]:
    """Read CoTs of `targets`, checkpoints of a run and its base. Returns result and file; UserError for a missing reader."""
    config = targets[-1].config
    opened = open_readers(readers, config, split)  # before any long work
    study, written = _write_all(targets, split, limit, cots, folder, counting)
    curves = [Curve(ACTOR, config.model, study.how.prompt_style, {one.checkpoint: one.own for one in written})]
    for name, target in opened:
        curves.append(_read_all(name, target, written, folder, counting))
        gc.collect()  # as in Study.close
    result = transfer_result(study, written, curves)
    return result, study.write("transfer", result, _CELLS)


def open_readers(readers: Sequence[str], config: RunConfig, split: str = "test") -> list[tuple[str, Target]]:
    """Models, or last checkpoints of runs, put to the questions of `config`, with their names.

    UserError for one that is not there or that has no prompts for the task: its tokenizer is loaded to see, not its weights.
    """
    taken = nest({key: value for key, value in flatten(config.model_dump(mode="json")).items() if key.startswith(_QUESTIONS)})
    opened: list[tuple[str, Target]] = []
    task = task_of(config)
    questions = _some_questions(config, task, split) if readers else ()
    for name in readers:
        try:
            target = open_targets(name, "last", taken)[0]
            tokenizer = load_tokenizer(target.config.model, target.config.loading)
            prompt, end = target.config.prompt, target.config.objective.answer_end
            prompter = build_prompter(task, tokenizer, prompt.style, 1, prompt.answer_header, answer_end=end)
            for example in questions:
                prompter.reader_prompt(example, "markovian")
        except UserError as error:
            raise UserError(f"--readers {name}: {error}") from error
        opened.append((name, target))
    return opened


def _some_questions(config: RunConfig, task: Task, split: str) -> Sequence[Example]:
    """A few, to see whether a reader's tokenizer can carry them; a task that cuts texts by tokens can't give any yet."""
    with contextlib.suppress(UserError):
        return load_examples(config, task, split, limit=8).examples
    return ()


def _write_all(
    targets: Sequence[Target], split: str, limit: int | None, cots: int, folder: Path, counting: Counting | None
) -> tuple[Study, list[Written]]:
    """The CoTs of every checkpoint, first to last; and the last one's study, closed."""
    written: list[Written] = []
    study: Study | None = None
    for target, setup in prepared(sorted(targets, key=lambda one: -1 if one.step is None else one.step)):
        study = open_study(target, setup, split=split, limit=limit, cots=cots, folder=folder, counting=counting)
        own = study.read([whole(study, cot, RAW) for cot in study.cots], "its own CoTs")
        written.append(Written(target.checkpoint, target.step or 0, study.label, study.cots, own))
        study.close()
        del setup  # nothing but `prepared` holds the model while the next one is loaded
    assert study is not None
    return study, written


def _read_all(name: str, target: Target, written: Sequence[Written], folder: Path, counting: Counting | None) -> Curve:
    setup = target.prepare()
    read: dict[str, list[Scored]] = {}
    itself = label_of(target, setup, written[0].label.split, written[0].label.how)  # other weights are another reader
    by = hashlib.blake2b(f"{itself.model}/{itself.weights}".encode(), digest_size=4).hexdigest()
    for one in written:
        path = folder / f"readings-{one.label.file.removesuffix('.jsonl')}-by-{by}.jsonl"
        reader = Reader(setup, False, path, name, counting)
        read[one.checkpoint] = reader.read([_as_read(setup, cot) for cot in one.cots], f"CoTs of {one.checkpoint}")
    return Curve(name, target.config.model, setup.prompter.style, read)


def _as_read(setup: Setup, cot: StudyCot) -> Variant:
    ids = encode_cot(setup.prompter, cot.text)
    return Variant(cot.example, cot.number, "transferred", ids, ids, "markovian")


# --------------------------------------------------------------------------------------------------------- results


def transfer_result(study: Study, written: Sequence[Written], curves: Sequence[Curve]) -> dict[str, Any]:
    """JSON: a point for each checkpoint and reader, each paired with the base's CoTs, and rank correlations."""
    seed = study.how.seed
    points = [point for curve in curves for point in _points(curve, written, seed)]
    means = {curve.reader: [p["logprob"]["mean"] for p in points if p["reader"] == curve.reader] for curve in curves}
    return {
        **study.header("transfer"),
        "reader_conditioning": "markovian",
        "readers": [{"reader": c.reader, "model": c.model, "prompt_style": c.prompt_style} for c in curves],
        "points": points,
        "correlation": [
            {"reader": name, **rank_correlation(means[ACTOR], values)} for name, values in means.items() if name != ACTOR
        ],
    }


def _points(curve: Curve, written: Sequence[Written], seed: int) -> Iterator[dict[str, Any]]:
    base = {cot.key: one for w in written if w.checkpoint == BASE for cot, one in zip(w.cots, curve.read[BASE], strict=True)}
    for one in written:
        scored = curve.read[one.checkpoint]
        clusters = [cot.example.id for cot in one.cots]
        theirs = [base[cot.key] for cot in one.cots if cot.key in base]
        yield {
            "checkpoint": one.checkpoint,
            "step": one.step,
            "reader": curve.reader,
            "n": len(set(clusters)),
            **estimates(scored, clusters, seed),
            "vs_base": None if one.checkpoint == BASE or not theirs else gains(scored, theirs, clusters, seed),
        }


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Spearman's rho over checkpoints with a two-sided p: over all orders up to 7, else from Student's t.

    Null where there are fewer than three checkpoints or one curve is flat.
    """
    n = len(ours)
    if n < 3 or len(set(ours)) == 1 or len(set(theirs)) == 1:
        return {"spearman": None, "n": n, "p": None}
    found = stats.spearmanr(ours, theirs)
    rho = float(found.statistic)
    p = _exact_p(ours, theirs, rho) if n <= _EXACT else float(found.pvalue)
    return {"spearman": rho, "n": n, "p": p}


def _exact_p(ours: Sequence[float], theirs: Sequence[float], rho: float) -> float:
    a, b = stats.rankdata(ours), stats.rankdata(theirs)
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    found = [sum(x * y for x, y in zip(a, order, strict=True)) / len(ours) for order in itertools.permutations(b)]
    return sum(abs(value) >= abs(rho) - 1e-12 for value in found) / math.factorial(len(ours))
