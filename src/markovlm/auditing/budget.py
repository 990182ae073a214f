"""How many questions can be read in so many minutes, estimated by reading and timing the first few."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from markovlm.analysis.scoring import Variant
from markovlm.analysis.study import Counting
from markovlm.auditing.plan import AuditRequest, Material
from markovlm.auditing.readers import tokens_of
from markovlm.auditing.reading import Gathered, gather_studies
from markovlm.auditing.server import open_reader

_TRIAL = 0.1  # of the time: spent on the first questions, by which the pace is known
_FEWEST = 3  # questions that are read whatever the time


def within_minutes(request: AuditRequest, counting: Counting | None, say: Callable[[str], None]) -> AuditRequest:
    """The request with as many questions of each group as its readers can read in `request.minutes`, but at least three.

    What was read before takes no time, so the same command again continues. Every reader gets the same share of the time, and all
    read the same questions.
    """
    assert request.minutes is not None
    each = 60 * request.minutes / max(1, len(request.readers))
    most = max(len({cot.example.id for cot in cots}) for cots in request.material.groups.values())
    chosen, late = most, False
    for name, target in request.readers:
        opened = open_reader(name, target, request, counting)
        gathered = gather_studies(opened, request)
        began = time.perf_counter()
        chosen = min(chosen, _readable(gathered, each, most))
        late = late or time.perf_counter() - began > each
        del opened, gathered
    material = limited(request.material, chosen)
    what = f"--budget {request.minutes:g}: {chosen} of {most} questions of a group"
    said = "were read, which took longer than" if late else "can be read in"
    note = f"{what} {said} {request.minutes:g} minutes"
    note += "; the same command again continues" if chosen < most else ""
    say(note)
    return replace(request, material=replace(material, notes=(*material.notes, note)))


def _readable(gathered: Gathered, seconds: float, most: int) -> int:
    """How many questions fit in the time of one reader: its first ones are read and timed, the rest is counted."""
    reader, began = gathered.opened.reader, time.perf_counter()
    by_question = gathered.by_question()
    cost = [sum(map(tokens_of, reader.missing(variants))) for variants in by_question]
    read = 0
    trial: list[Variant] = []
    for number, variants in enumerate(by_question):
        trial = list(variants)
        reader.read(trial, "the first questions, to time it")
        read += cost[number]
        spent = time.perf_counter() - began
        if number + 1 >= min(_FEWEST, most) and read and spent >= _TRIAL * seconds:
            break
    else:
        return most
    pace = read / spent  # tokens a second
    left = seconds - spent
    number += 1
    while number < most and left > 0:
        left -= cost[number] / pace
        number += left >= 0
    return max(min(_FEWEST, most), number)


def limited(material: Material, questions: int) -> Material:
    """The first questions of each group."""
    groups = {}
    for group, cots in material.groups.items():
        first = set(list(dict.fromkeys(cot.example.id for cot in cots))[:questions])
        groups[group] = tuple(cot for cot in cots if cot.example.id in first)
    return replace(material, groups=groups)
