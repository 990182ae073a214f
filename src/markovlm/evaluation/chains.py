"""Evaluation of chains: what can be answered from a state alone, turn by turn, against every control, with intervals over texts."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from markovlm.chains.controls import OWN, conditioning_of, controlled_state
from markovlm.chains.prompter import ChainPrompter, ChainTarget, Ids
from markovlm.chains.reading import target_batch
from markovlm.chains.texts import ChainText
from markovlm.chains.walk import Walk, walk
from markovlm.evaluation.answering import read_answer
from markovlm.evaluation.evaluate import How
from markovlm.models.load import LanguageModel
from markovlm.models.memory import map_splitting
from markovlm.rollouts.reader import answer_decoding, score_answers
from markovlm.rollouts.streams import Key
from markovlm.rollouts.types import Decoding, Sampler, SampleRequest
from markovlm.statistics import Estimate, cluster_mean_ci, wilson
from markovlm.tasks.base import Example
from markovlm.texts.notes import note_signals

_ALL = "all"


@dataclass(frozen=True, slots=True)
class ChainReading:
    """One prediction from one state."""

    text: str  # id
    t: int  # the state was written after chunk t
    control: str  # what the state was replaced by; "own": nothing
    kind: str  # next_chunk, answer
    logprob: float  # nats per predicted token
    question: str | None = None
    gold: str | None = None
    answer: str | None = None  # greedy
    correct: bool | None = None  # by the task's default extractor; None where nothing is extracted
    distance: int | None = None  # chunks between fact and question


@dataclass(frozen=True, slots=True)
class ChainTrace:
    """The states of one text, as text."""

    text: str
    states: tuple[str, ...]
    tokens: tuple[int, ...]
    signals: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class ChainBatch:
    """Texts that were evaluated together: `number` is the index of the batch."""

    number: int
    readings: list[ChainReading] = field(default_factory=list[ChainReading])
    traces: list[ChainTrace] = field(default_factory=list[ChainTrace])
    seconds: float = 0.0  # of writing and reading the own states
    peak_memory: int = 0  # bytes: of the process (CPU) or allocated (CUDA)

    def __len__(self) -> int:
        return len(self.traces)


@dataclass(frozen=True, slots=True)
class ChainEvaluation:
    """All predictions on a set of texts under the controls that were asked for."""

    readings: list[ChainReading]
    traces: list[ChainTrace]
    how: How
    seconds: float  # of writing and reading the own states
    peak_memory: int  # bytes: of the process (CPU) or allocated (CUDA)

    def of(self, control: str, kind: str) -> list[ChainReading]:
        return [r for r in self.readings if r.control == control and r.kind == kind]

    def summary(self) -> dict[str, Any]:
        """A row as `evaluate` gives it. n counts questions, or predicted chunks if there are none; intervals are over texts."""
        kind = "answer" if self.of(OWN, "answer") else "next_chunk"
        found = measured(self.of(OWN, kind), self.how.seed)
        extractors = (
            {} if found["accuracy"] is None else {"default": {k: found[k] for k in ("accuracy", "ci95")} | {"no_answer": 0.0}}
        )
        return {
            "n": found["n"],
            "texts": len(self.traces),
            "accuracy": found["accuracy"],
            "ci95": found["ci95"],
            "extractors": extractors,
            "logprob": found["logprob"],
            "failures": {},
            "how": asdict(self.how),
        }

    def report(self) -> dict[str, Any]:
        """JSON values for everything predicted, from own states and under controls: overall, by t and by distance."""
        table: dict[str, Any] = {}
        for kind in dict.fromkeys(r.kind for r in self.readings):
            controls = dict.fromkeys(r.control for r in self.readings if r.kind == kind)
            table[kind] = {control: self._table(self.of(control, kind)) for control in controls}
        tokens = [n for trace in self.traces for n in trace.tokens]
        names = dict.fromkeys(name for trace in self.traces for name in trace.signals)
        notes = {name: _mean([v for trace in self.traces if (v := trace.signals[name]) is not None]) for name in names}
        return {
            **self.summary(),
            "predicted": table,
            "states": {"mean_tokens": _mean(tokens), "max_tokens": max(tokens), "written": len(tokens), **notes},
            "evaluation_seconds": self.seconds,
            "peak_memory": self.peak_memory,
        }

    def _table(self, readings: Sequence[ChainReading]) -> dict[str, Any]:
        seed = self.how.seed
        by_t = {t: [r for r in readings if r.t == t] for t in sorted({r.t for r in readings})}
        apart = sorted({r.distance for r in readings if r.distance is not None})
        by_distance = {d: [r for r in readings if r.distance == d] for d in apart}
        return {
            **measured(readings, seed),
            "versus_own": self._versus_own(readings),
            "by_t": [{"t": t, **measured(few, seed)} for t, few in by_t.items()],
            "by_distance": [{"distance": d, **measured(few, seed)} for d, few in by_distance.items()],
        }

    def _versus_own(self, readings: Sequence[ChainReading]) -> dict[str, Any] | None:
        """Own state minus control, paired question by question."""
        if not readings or readings[0].control == OWN:
            return None
        own = {(r.text, r.t, r.question): r for r in self.of(OWN, readings[0].kind)}
        pairs = [(own[r.text, r.t, r.question], r) for r in readings]
        clusters = [r.text for r in readings]
        logprob = cluster_mean_ci([a.logprob - b.logprob for a, b in pairs], clusters, self.how.seed)
        found: dict[str, Any] = {"logprob": logprob.mean, "logprob_ci95": _interval(logprob)}
        if all(a.correct is not None and b.correct is not None for a, b in pairs):
            right = cluster_mean_ci([float(bool(a.correct)) - float(bool(b.correct)) for a, b in pairs], clusters, self.how.seed)
            found |= {"accuracy": right.mean, "ci95": _interval(right)}
        return found


def measured(readings: Sequence[ChainReading], seed: int) -> dict[str, Any]:
    """n, accuracy and nats per predicted token, 95 % bootstrap intervals over texts."""
    clusters = [r.text for r in readings]
    logprob = cluster_mean_ci([r.logprob for r in readings], clusters, seed)
    judged = [r for r in readings if r.correct is not None]
    right = share_right([float(bool(r.correct)) for r in judged], [r.text for r in judged], seed) if judged else None
    return {
        "n": len(readings),
        "accuracy": right.mean if right else None,
        "ci95": _interval(right) if right else None,
        "logprob": logprob.mean,
        "logprob_ci95": _interval(logprob),
    }


def share_right(right: Sequence[float], texts: Sequence[str], seed: int) -> Estimate:
    """Share of right answers, bootstrapped over texts; Wilson's interval (n texts) if all agree: nothing to resample."""
    if len(set(right)) > 1:
        return cluster_mean_ci(right, texts, seed)
    n = len(set(texts))
    return Estimate(right[0], *wilson(n if right[0] else 0, n))


def evaluate_chains(
    lm: LanguageModel,
    sampler: Sampler,
    prompter: ChainPrompter,
    examples: Sequence[Example],
    how: How,
    *,
    controls: Sequence[str] = (),
    batch_size: int = 128,
    known: Mapping[int, ChainBatch] | None = None,
    on_batch: Callable[[ChainBatch], None] | None = None,
) -> ChainEvaluation:
    """Evaluate chains of the policy that `lm` currently is on `examples`; states are drawn from streams keyed by (seed, text, t).

    `known`: batches of an interrupted evaluation, by number. `on_batch` gets each further batch as it is finished.
    """
    texts = [prompter.text_of(example) for example in examples]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    batches: list[ChainBatch] = []
    for number, at in enumerate(range(0, len(texts), batch_size)):
        batch = (known or {}).get(number)
        if batch is None:
            batch = _evaluate_batch(lm, sampler, prompter, number, texts[at : at + batch_size], how, controls, batch_size)
            if on_batch is not None:
                on_batch(batch)
        batches.append(batch)
    return ChainEvaluation(
        [reading for batch in batches for reading in batch.readings],
        [trace for batch in batches for trace in batch.traces],
        how,
        sum(batch.seconds for batch in batches),
        max((batch.peak_memory for batch in batches), default=0),
    )


def _evaluate_batch(
    lm: LanguageModel,
    sampler: Sampler,
    prompter: ChainPrompter,
    number: int,
    texts: Sequence[ChainText],
    how: How,
    controls: Sequence[str],
    most: int,
) -> ChainBatch:
    began = time.perf_counter()
    walks = walk_texts(sampler, prompter, texts, how)
    readings = _read(lm, sampler, prompter, walks, None, OWN, how, most)
    seconds, peak = time.perf_counter() - began, _peak_memory()
    frozen = None
    if "frozen" in controls:
        with lm.frozen():
            frozen = walk_texts(sampler, prompter, texts, how)
    for control in controls:
        readings += _read(lm, sampler, prompter, walks, frozen, control, how, most)
    return ChainBatch(number, readings, [_trace(prompter, one) for one in walks], seconds, peak)


def walk_texts(
    sampler: Sampler,
    prompter: ChainPrompter,
    texts: Sequence[ChainText],
    how: How,
    first: int = 1,
    start: Sequence[Ids] | None = None,
) -> list[Walk]:
    """Write one chain per text; `first`, `start` as in `walk`."""
    decoding = Decoding(how.cot_tokens, how.temperature, how.fixed_length, how.stop)

    def key(text: ChainText, _: int, t: int) -> Key:
        return how.seed, "evaluation", text.id, t

    return walk(sampler, prompter, [(text, 0) for text in texts], decoding, key, first=first, start=start)


@torch.no_grad()
def _read(
    lm: LanguageModel,
    sampler: Sampler,
    prompter: ChainPrompter,
    walks: Sequence[Walk],
    frozen: Sequence[Walk] | None,
    control: str,
    how: How,
    most: int,
) -> list[ChainReading]:
    """Everything that is predicted from every state, the state replaced as `control` says; at most `most` rows in one pass."""
    sight = conditioning_of(control, how.conditioning)
    jobs: list[tuple[Walk, int, Ids, ChainTarget]] = []
    for number, one in enumerate(walks):
        for t in range(1, one.text.states + 1):
            targets = prompter.targets(one.text, t, sight, all_kinds=True)
            state = controlled_state(control, prompter, walks, frozen, number, t) if targets else ()
            jobs += [(one, t, state, target) for target in targets]
    found: list[ChainReading] = []
    with lm.frozen() if how.reader == "frozen" else lm.merged():
        for at in range(0, len(jobs), most):  # a long chain has many states: memory must not grow with their number
            found += map_splitting(lambda part: read_jobs(lm, sampler, prompter, part, control), jobs[at : at + most])
    return found


def read_jobs(
    lm: LanguageModel, sampler: Sampler, prompter: ChainPrompter, jobs: Sequence[tuple[Walk, int, Ids, ChainTarget]], control: str
) -> list[ChainReading]:
    """Log-likelihoods of targets, and greedy answers, after given states."""
    if not jobs:
        return []
    scores = score_answers(lm, target_batch([(state, target) for _, _, state, target in jobs])).logp_mean.tolist()
    asked = [i for i, (_, _, _, target) in enumerate(jobs) if target.query is not None]
    requests = [SampleRequest(jobs[i][3].prefix + jobs[i][2] + jobs[i][3].between, (("greedy answer",),)) for i in asked]
    drawn = sampler.sample(requests, answer_decoding(prompter, prompter.task.max_answer_tokens)) if requests else []
    replies = {i: group[0] for i, group in zip(asked, drawn, strict=True)}
    found = []
    for i, (one, t, _, target) in enumerate(jobs):
        query, written = target.query, replies.get(i)
        reply = None if written is None else prompter.text(written.ids)
        correct = None
        if query is not None and written is not None and reply is not None and prompter.task.extractors:
            gold = Example(one.text.id, query.question, query.answer, one.text.example.choices)
            correct = read_answer(prompter.task, gold, reply, prompter.task.extractors[0], ended=written.ended)[1]
        about = (
            (None, None, None, None, None) if query is None else (query.question, query.answer, reply, correct, query.distance)
        )
        found.append(ChainReading(one.text.id, t, control, target.kind, scores[i], *about))
    return found


def _trace(prompter: ChainPrompter, one: Walk) -> ChainTrace:
    states = [prompter.text(cot.ids) for cot in one.written]
    signals = dict(note_signals(states, one.text.chunks))
    signals["notes_overflow"] = sum(not cot.ended for cot in one.written) / len(one.written)
    return ChainTrace(one.text.id, tuple(states), tuple(len(cot.ids) for cot in one.written), signals)


def _peak_memory() -> int:
    """Bytes: allocated on CUDA since the evaluation began, else the process's resident peak so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _interval(estimate: Any) -> list[float] | None:
    return None if estimate.low != estimate.low else [estimate.low, estimate.high]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
