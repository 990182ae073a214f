"""Studies of chains: how far damage to a state travels, which of its words are read and which survive, which facts it holds when.

damage    s_{t+1} is damaged and the chain goes on from there with the same random streams: what is lost at lag 0, 1, 2, …
words     each word of a state is left out in turn: drop of what is read from it; and is the word in the next state?
facts     every question is put to every state: when does its answer enter the notes, how long does it stay?
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from markovlm.analysis.fragility import Plan
from markovlm.analysis.perturb import PERTURBATIONS, Context, perturb_ids, perturb_text, token_pool
from markovlm.analysis.scoring import encode_cot
from markovlm.analysis.study import Counting, bar, estimate, estimate_some
from markovlm.chains.prompter import ChainPrompter, Ids, Target
from markovlm.chains.walk import Walk, walk
from markovlm.errors import UserError
from markovlm.evaluation.chain_run import chain_how, prompter_of
from markovlm.evaluation.chains import ChainReading, read_jobs, share_right, walk_texts
from markovlm.evaluation.evaluate import How
from markovlm.rollouts.streams import stream
from markovlm.rollouts.types import Decoding, Sampler
from markovlm.runs.rows import clean, replace_whole
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target as Checkpoint

Job = tuple[Walk, int, Ids, Target]
_PIECE = re.compile(r"\S+")
_MOST_STEPS = 6  # damaged of a long chain, spread over it
_ROWS = 256  # read at once


@dataclass(slots=True)
class ChainStudy:
    """One checkpoint, loaded, with a chain over each text."""

    setup: Setup
    prompter: ChainPrompter
    sampler: Sampler
    how: How
    walks: list[Walk]
    counting: Counting | None

    def read(self, jobs: Sequence[Job], doing: str) -> list[ChainReading]:
        """Everything named, by this checkpoint's reader."""
        found: list[ChainReading] = []
        lm = self.setup.lm
        with bar(self.counting, doing, len(jobs)) as advance, torch.no_grad():
            for at in range(0, len(jobs), _ROWS):
                few = jobs[at : at + _ROWS]
                with lm.frozen() if self.how.reader == "frozen" else lm.merged():
                    found += read_jobs(lm, self.sampler, self.prompter, few, "own")
                if advance is not None:
                    advance(len(few))
        return found

    def go_on(self, starts: Sequence[tuple[Walk, Ids]], first: int) -> list[Walk]:
        """Chains from these states on, step `first` the next one, with the random streams of the undamaged chains."""
        how = self.how
        decoding = Decoding(how.cot_tokens, how.temperature, how.fixed_length, how.stop)
        return walk(
            self.sampler,
            self.prompter,
            [(one.text, 0) for one, _ in starts],
            decoding,
            lambda text, _, t: (how.seed, "evaluation", text.id, t),
            first=first,
            start=[state for _, state in starts],
        )

    def targets(self, one: Walk, t: int) -> tuple[Target, ...]:
        return self.prompter.targets(one.text, t, self.how.conditioning, all_kinds=True)


def open_chain_study(setup: Setup, examples: Sequence[Any], counting: Counting | None) -> ChainStudy:
    """Write the states of every text. UserError for a run that has no notes to study."""
    prompter = prompter_of(setup)
    if prompter.chain.kind == "thinking":
        raise UserError("studies of chains are of notes: chain.kind=thinking has none; study it with markovlm eval")
    how, sampler = chain_how(setup), setup.sampler()
    walks = walk_texts(sampler, prompter, [prompter.text_of(example) for example in examples], how)
    return ChainStudy(setup, prompter, sampler, how, walks, counting)


# ---------------------------------------------------------------------------------------------------------- damage


def damage(study: ChainStudy, plan: Plan) -> dict[str, Any]:
    """Rows by perturbation, severity and lag: drop of what is predicted `lag` chunks after the damaged state, and is that state another?"""
    steps = _steps(max(one.text.states for one in study.walks))
    before = {_key(r): r for r in study.read(_all_jobs(study, study.walks), "undamaged")}
    rows: list[dict[str, Any]] = []
    for name, severity in plan.cells():
        lost: dict[tuple[str, int], list[tuple[str, float, float | None]]] = {}
        other: dict[int, list[tuple[str, float]]] = {}
        for t in steps:
            few = [one for one in study.walks if one.text.states >= t]
            starts = [(one, _damaged(study, one, t, name, severity)) for one in few]
            later = study.go_on(starts, t + 1)
            jobs = [
                (new, t, state, target) for new, (_, state) in zip(later, starts, strict=True) for target in study.targets(new, t)
            ]
            jobs += _all_jobs(study, later)
            for reading in study.read(jobs, f"{name} {severity:g} at {t}"):
                intact = before[_key(reading)]
                right = (
                    None if intact.correct is None or reading.correct is None else float(intact.correct) - float(reading.correct)
                )
                row = (reading.text, intact.logprob - reading.logprob, right)
                lost.setdefault((reading.kind, reading.t - t), []).append(row)
            for old, new in zip(few, later, strict=True):
                for lag in range(1, old.text.states - t + 1):
                    other.setdefault(lag, []).append((old.text.id, float(old.state(t + lag + 1) != new.state(t + lag + 1))))
        seed = study.how.seed
        for (kind, lag), values in sorted(lost.items()):
            texts = [text for text, _, _ in values]
            changed = other.get(lag, [])
            rows.append(
                {
                    "perturbation": name,
                    "severity": severity,
                    "lag": lag,
                    "predicted": kind,
                    "n": len(values),
                    "drop_logprob": estimate([value for _, value, _ in values], texts, seed),
                    "drop_accuracy": estimate_some([right for _, _, right in values], texts, seed),
                    "state_differs": estimate([v for _, v in changed], [text for text, _ in changed], seed) if changed else None,
                }
            )
    return {"steps_damaged": steps, "rows": rows}


def _damaged(study: ChainStudy, one: Walk, t: int, name: str, severity: float) -> Ids:
    """The state written at `t`, damaged; severity 0 leaves the sampled ids as they are."""
    ids = one.state(t + 1)
    if severity == 0 or not ids:
        return ids
    rng = stream(study.how.seed, "perturb", name, one.text.id, t)
    if PERTURBATIONS[name].level == "token":
        tokenizer, lm = study.setup.lm.tokenizer, study.setup.lm
        size = min(lm.vocabulary, len(tokenizer))
        pool = token_pool([tokenizer.decode([i]) for i in range(size)], {*tokenizer.all_special_ids, *lm.terminators})
        return perturb_ids(name, ids, severity, rng, pool)
    walks = study.walks
    stranger = walks[(walks.index(one) + 1) % len(walks)]
    other = study.prompter.text(stranger.state(min(t, stranger.text.states) + 1))
    context = Context(one.text.chunks[t - 1], other)
    return encode_cot(study.prompter, perturb_text(name, study.prompter.text(ids), severity, rng, context))


def _steps(states: int) -> list[int]:
    """Which steps are damaged: all of a short chain, some spread over a long one."""
    if states <= _MOST_STEPS:
        return list(range(1, states + 1))
    return sorted({1 + round(i * (states - 1) / (_MOST_STEPS - 1)) for i in range(_MOST_STEPS)})


def _all_jobs(study: ChainStudy, walks: Sequence[Walk]) -> list[Job]:
    return [
        (one, t, one.state(t + 1), target)
        for one in walks
        for t in range(one.first, one.text.states + 1)
        for target in study.targets(one, t)
    ]


def _key(reading: ChainReading) -> tuple[str, int, str, str | None]:
    return reading.text, reading.t, reading.kind, reading.question


# ----------------------------------------------------------------------------------------------------------- words


def words(study: ChainStudy) -> dict[str, Any]:
    """Of every state of every text: its words with what is lost without them, and whether they are in the next state."""
    jobs: list[Job] = []
    places: list[tuple[int, int, int]] = []  # walk, t, word (-1: the whole state)
    split: dict[tuple[int, int], list[str]] = {}
    for number, one in enumerate(study.walks):
        for t in range(1, one.text.states + 1):
            text = study.prompter.text(one.state(t + 1))
            pieces = split[number, t] = [m[0] for m in _PIECE.finditer(text)]
            for target in study.targets(one, t):
                jobs.append((one, t, one.state(t + 1), target))
                places.append((number, t, -1))
                for word in range(len(pieces)):
                    left = encode_cot(study.prompter, " ".join(pieces[:word] + pieces[word + 1 :]))
                    jobs.append((one, t, left, target))
                    places.append((number, t, word))
    readings = study.read(jobs, "words")
    drops: dict[tuple[int, int, int], list[float]] = {}
    whole: dict[tuple[Any, ...], float] = {}
    for place, reading in zip(places, readings, strict=True):
        if place[2] < 0:
            whole[(*place[:2], reading.kind, reading.question)] = reading.logprob
        else:
            lost = whole[(*place[:2], reading.kind, reading.question)] - reading.logprob
            drops.setdefault(place, []).append(lost)
    texts = [
        {"text": one.text.id, "states": [_state_row(study, one, number, t, split, drops) for t in range(1, one.text.states + 1)]}
        for number, one in enumerate(study.walks)
    ]
    return {"texts": texts, "survival": _survival(texts, study.how.seed)}


def _state_row(
    study: ChainStudy,
    one: Walk,
    number: int,
    t: int,
    split: Mapping[tuple[int, int], list[str]],
    drops: Mapping[tuple[int, int, int], list[float]],
) -> dict[str, Any]:
    after = set(split.get((number, t + 1), ()))
    rows = []
    for i, word in enumerate(split[number, t]):
        lost = drops.get((number, t, i))
        drop = sum(lost) / len(lost) if lost else None
        rows.append({"word": word, "drop": drop, "survives": word in after if t < one.text.states else None})
    return {"t": t, "chunk": one.text.chunks[t - 1], "words": rows}


def _survival(texts: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any] | None:
    """Share of a state's words that stand in the next one."""
    values = [
        (text["text"], float(word["survives"]))
        for text in texts
        for state in text["states"]
        for word in state["words"]
        if word["survives"] is not None
    ]
    return estimate([value for _, value in values], [text for text, _ in values], seed) if values else None


# ----------------------------------------------------------------------------------------------------------- facts


def facts(study: ChainStudy) -> dict[str, Any] | None:
    """Every question put to every state up to its own: p(answer), right or not; by age of the fact in chunks. None without questions.

    The answer is that of the question's own time: before its fact was read it can't be known, and how often it is guessed is what age
    below 0 shows.
    """
    jobs: list[Job] = []
    about: list[tuple[Walk, Any]] = []
    for one in study.walks:
        for query in one.text.queries:
            for t in range(1, query.after + 1):
                moved = study.prompter.answer_target(one.text, replace(query, after=t, fact=None), study.how.conditioning)
                jobs.append((one, t, one.state(t + 1), moved))
                about.append((one, query))
    if not jobs:
        return None
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    ages: dict[int, list[tuple[str, float, float | None]]] = {}
    for (one, query), reading in zip(about, study.read(jobs, "facts"), strict=True):
        named = {
            "text": one.text.id,
            "question": query.question,
            "answer": query.answer,
            "fact": query.fact,
            "after": query.after,
        }
        row = rows.setdefault((one.text.id, query.question, query.after), {**named, "known": []})
        row["known"].append({"t": reading.t, "logprob": reading.logprob, "correct": reading.correct})
        if query.fact is not None:
            right = None if reading.correct is None else float(reading.correct)
            ages.setdefault(reading.t - query.fact, []).append((one.text.id, reading.logprob, right))
    seed = study.how.seed
    by_age = [
        {
            "age": age,
            "n": len(found),
            "logprob": estimate([value for _, value, _ in found], [text for text, _, _ in found], seed),
            "accuracy": _share(found, seed),
        }
        for age, found in sorted(ages.items())
    ]
    return {"questions": list(rows.values()), "by_age": by_age}


def _share(found: Sequence[tuple[str, float, float | None]], seed: int) -> dict[str, Any] | None:
    """Of answers that were judged; None where none was."""
    judged = [(text, right) for text, _, right in found if right is not None]
    if not judged:
        return None
    share = share_right([right for _, right in judged], [text for text, _ in judged], seed)
    return {"mean": share.mean, "ci95": [share.low, share.high]}


# ------------------------------------------------------------------------------------------------------------ a run

Part = str
PARTS: Mapping[str, Callable[[ChainStudy, Plan], dict[str, Any] | None]] = {
    "damage": damage,
    "words": lambda study, _: words(study),
    "facts": lambda study, _: facts(study),
}
_QUICK = ("delete", "truncate_front", "truncate_back", "digit_replace", "other_cot")


def chain_plan(plan: Plan) -> Plan:
    """The plan that was asked for; without a wish five kinds of damage at three severities, since every one goes through the whole chain."""
    if plan != Plan():
        return plan
    return Plan(_QUICK, (0.2, 0.6, 1.0))


def study_chains(
    target: Checkpoint, split: str, limit: int, parts: Sequence[Part], plan: Plan, folder: Path, counting: Counting | None
) -> tuple[dict[str, Any], list[Path]]:
    """Do the parts asked for; the result as JSON and as a page, both in `folder`."""
    from markovlm.analysis.render_chains import chains_html

    setup = target.prepare()
    loaded = target.load(setup, split, limit)
    study = open_chain_study(setup, list(loaded.examples), counting)
    result: dict[str, Any] = {
        "kind": "chains",
        "run": target.name,
        "checkpoint": target.checkpoint,
        "step": target.step or 0,
        "split": split,
        "task": target.config.task,
        "n": len(study.walks),
        "state_tokens": study.prompter.cot_tokens,
        "seed": study.how.seed,
        "notes": list(loaded.notes),
        **{part: PARTS[part](study, chain_plan(plan)) for part in parts},
    }
    result = clean(result)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"chains-{target.checkpoint}-{split}"
    data, page = folder / f"{stem}.json", folder / f"{stem}.html"
    if data.is_file():  # parts of an earlier request on the same texts stay
        kept = json.loads(data.read_text(encoding="utf-8"))
        same = ("checkpoint", "split", "task", "n", "seed", "state_tokens")
        if all(kept.get(key) == result[key] for key in same):
            result = {**{part: kept[part] for part in PARTS if part in kept}, **result}
    replace_whole(data, json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False).encode())
    replace_whole(page, chains_html(result).encode())
    return result, [data, page]
