"""Signals of texts for runs whose metrics lack them: measured on the samples that were kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from markovlm.health.levels import window_of
from markovlm.health.series import Course, smooth
from markovlm.logs.records import LoggedSample, RunData
from markovlm.texts.question import question_signals, similarity

TEXT_KEYS = ("cot_contains_answer", "copies_question_fraction", "question_specificity")
LEAST_SAMPLES = 20


def courses_of_samples(run: RunData) -> dict[str, Course]:
    """`TEXT_KEYS` over the run's samples, one value per step; none if fewer than twenty samples have their question.

    Samples of one step are looked at together; a lone one beside its neighbour, for a CoT is specific only against another question.
    """
    samples = [s for s in run.samples if s.question.strip() and s.cot.strip()]
    if len(samples) < LEAST_SAMPLES or run.kind == "evaluation":
        return {}
    found: dict[str, list[tuple[int, float]]] = {key: [] for key in TEXT_KEYS}
    for step, group in _by_step(samples):
        beside = group if len({s.question for s in group}) > 1 else [*group, *_neighbour(samples, group)]
        signals = question_signals([s.question for s in beside], [s.cot for s in beside], [s.answer for s in beside])
        for key, value in signals.items():
            found[key].append((step, value))
    return {
        key: Course(key, np.array([step for step, _ in rows], dtype=float), np.array([value for _, value in rows], dtype=float))
        for key, rows in found.items()
        if len(rows) >= LEAST_SAMPLES // 2
    }


def _by_step(samples: Sequence[LoggedSample]) -> list[tuple[int, list[LoggedSample]]]:
    return [(step, list(group)) for step, group in groupby(samples, key=lambda s: s.step)]


def _neighbour(samples: Sequence[LoggedSample], group: Sequence[LoggedSample]) -> list[LoggedSample]:
    """The nearest sample of another question."""
    at = samples.index(group[-1])
    other = next((s for s in samples[at + 1 :] if s.question != group[-1].question), None)
    before = next((s for s in reversed(samples[:at]) if s.question != group[-1].question), None)
    found = other or before
    return [found] if found else []


COPIES = 0.5  # share of CoTs that only restate their question, above which a stretch counts as copied
SPECIFIC = 0.1  # specificity under which a CoT would fit any question


def empty_stretches(course_of: Callable[[str], Course | None]) -> list[tuple[int, int, str]]:
    """(first step, last step, rule) of the stretches, at least a tenth of the run, in which CoTs copy or ignore their questions.

    A run that began that way is let be until it has left it: many a base model restates sums before it learns to add.
    """
    held = course_of("cot_contains_answer")
    found: list[tuple[int, int, str]] = []
    for key, rule in (("copies_question_fraction", "copies_question"), ("question_specificity", "ignores_question")):
        c = course_of(key)
        if c is None or len(c) < LEAST_SAMPLES:
            continue
        window = window_of(len(c))
        level = smooth(c.values, window)
        bad = level > COPIES if key == "copies_question_fraction" else level < SPECIFIC
        if rule == "ignores_question" and held is not None:  # a bare answer says nothing of its question, and need not
            bad &= np.interp(c.steps, held.steps, smooth(held.values, window_of(len(held)))) < 0.5
        found += [
            (int(c.steps[a]), int(c.steps[b - 1]), rule) for a, b in _runs(bad) if b - a >= window and (a > 0 or b == len(c))
        ]
    return sorted(found)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def alike_at_the_end(samples: Sequence[LoggedSample]) -> float | None:
    """How alike the last twenty CoTs are, share of n-grams of five."""
    return similarity([s.cot for s in samples[-20:]])
