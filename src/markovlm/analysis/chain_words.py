"""Which words of a state are read, and which survive into the next one.

Each word is left out in turn, its tokens taken out of the sampled ones. `drop`: what is lost of what is predicted from the state (None
where nothing is). `drop_next`: what is lost of the next state as it was written, for a state is read by the writer of the next one too;
of the pieces of a `thinking` chain that is all that reads them, but for the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from markovlm.analysis.chain_study import ChainStudy, Job
from markovlm.analysis.explain import pieces_of
from markovlm.analysis.study import estimate_some
from markovlm.analysis.units import Unit, units_of
from markovlm.chains.prompter import Ids
from markovlm.evaluation.chains import ChainReading


@dataclass(slots=True)
class _State:
    """The state that a chain wrote at one step, cut into words."""

    text: str  # id
    t: int
    chunk: str
    words: list[tuple[str, Ids]]  # each word, and the state without it
    last: bool
    drop: list[float | None] = field(default_factory=list[float | None])
    drop_next: list[float | None] = field(default_factory=list[float | None])


def words(study: ChainStudy) -> dict[str, Any]:
    """All words of every state of every text, with the drop without them, and whether they are in the next state."""
    read: list[Job] = []
    written: list[Job] = []
    states: list[_State] = []
    spans: list[tuple[slice, int, slice]] = []  # of `read`, with how many are predicted from the state; of `written`
    for one in study.walks:
        for t in range(1, one.text.states + 1):
            ids, last = one.state(t + 1), t == one.text.states
            state = _State(one.text.id, t, one.text.chunks[t - 1], _words(study, ids), last)
            variants = [ids, *(left for _, left in state.words)]
            targets = study.targets(one, t)
            mine = [(one, t, variant, target) for target in targets for variant in variants]
            following = () if last else (study.prompter.next_state(one.text, t + 1, one.written[t].tokens),)
            theirs = [(one, t, variant, target) for target in following for variant in variants]
            spans.append((slice(len(read), len(read) + len(mine)), len(targets), slice(len(written), len(written) + len(theirs))))
            read += mine
            written += theirs
            states.append(state)
    readings, rewritten = study.read(read, "words"), study.read(written, "words, next states", by="writer")
    for state, (mine, predicted, theirs) in zip(states, spans, strict=True):
        state.drop = _drops(readings[mine], predicted, len(state.words))
        state.drop_next = _drops(rewritten[theirs], 0 if state.last else 1, len(state.words))
    texts = [
        {"text": one.text.id, "states": [_row(state, later) for state, later in _pairs(states, one.text.id)]}
        for one in study.walks
    ]
    return {"texts": texts, "survival": _survival(texts, study.how.seed)}


def _words(study: ChainStudy, ids: Ids) -> list[tuple[str, Ids]]:
    """Notes are cut at blanks; what is thought, which may have none, into numbers, words and signs."""
    units = units_of(pieces_of(study.prompter, ids), "word")
    groups: list[list[Unit]] = []
    for unit in units:
        if study.prompter.chain.kind == "thinking" or not groups or unit.text[:1].isspace():
            groups.append([])
        groups[-1].append(unit)
    found = []
    for group in groups:
        gone = {position for unit in group for position in unit.positions}
        left = tuple(token for position, token in enumerate(ids) if position not in gone)
        found.append(("".join(unit.text for unit in group).strip(), left))
    return [(word, left) for word, left in found if word]


def _drops(readings: Sequence[ChainReading], predicted: int, count: int) -> list[float | None]:
    """Of each word: what is lost without it, mean over what is predicted. The whole state comes first, then the state without each."""
    if not predicted:
        return [None] * count
    rows = [readings[i * (count + 1) : (i + 1) * (count + 1)] for i in range(predicted)]
    return [fmean(row[0].logprob - row[1 + word].logprob for row in rows) for word in range(count)]


def _pairs(states: Sequence[_State], text: str) -> list[tuple[_State, _State | None]]:
    """Each state of a text with the one after it."""
    own = [state for state in states if state.text == text]
    return list(zip(own, [*own[1:], None], strict=True))


def _row(state: _State, later: _State | None) -> dict[str, Any]:
    after = {word for word, _ in later.words} if later is not None else set[str]()
    rows = [
        {"word": word, "drop": drop, "drop_next": following, "survives": None if later is None else word in after}
        for (word, _), drop, following in zip(state.words, state.drop, state.drop_next, strict=True)
    ]
    return {"t": state.t, "chunk": state.chunk, "words": rows}


def _survival(texts: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any] | None:
    """Share of a state's words and numbers (not its signs) that stand in the next one."""
    values = [
        (text["text"], float(word["survives"]))
        for text in texts
        for state in text["states"]
        for word in state["words"]
        if word["survives"] is not None and any(char.isalnum() for char in word["word"])
    ]
    return estimate_some([value for _, value in values], [text for text, _ in values], seed)
