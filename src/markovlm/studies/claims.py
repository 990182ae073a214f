"""Studies as sentences. What a sentence says follows from the interval: if it contains 0, there is "no measurable" difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from markovlm.intervals import percent_text
from markovlm.studies.chain_claims import chain_sentences
from markovlm.studies.fields import Estimate
from markovlm.studies.records import (
    ACTOR,
    BASE,
    Bypass,
    Damage,
    Explain,
    Intervention,
    KindLoad,
    Leak,
    Own,
    Perturb,
    Point,
    Resample,
    Study,
    ThreeWay,
    Transfer,
)  # fmt: skip
from markovlm.studies.words import cell_text, nats, opposite, points, severity_text, share, spoken

FEW = 50  # questions below which a bootstrap interval is too narrow to lean on
HEADLINE = 0.4  # the severity that is put in words
_MOST_READERS = 4  # named in words; the table has all
_UNCHANGED = 0.5  # that a perturbation changed fewer of the CoTs is said
_ALPHA = 0.05
_LEVELS = ("character", "token", "meaning")
_DAMAGE = {
    "delete": "deleting {s} of the CoT",
    "truncate front": "cutting the first {s} of the CoT",
    "truncate back": "cutting the last {s} of the CoT",
    "digit replace": "replacing digits with probability {s}",
    "char replace": "replacing letters and digits with probability {s}",
    "replace": "replacing tokens with probability {s}",
}
_SIGHT = {"markovian": "Markovian", "non_markovian": "non-Markovian"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What one study found. `lead` belongs in the run's one line, `more` under it; either may be empty."""

    about: str
    lead: str
    more: str
    study: Study


@dataclass(frozen=True, slots=True)
class _Said:
    lead: list[str] = field(default_factory=list[str])
    more: list[str] = field(default_factory=list[str])


def claim_of(study: Study) -> Claim:
    """The sentences of one study, none of them about a number without its interval."""
    about, write = _WRITERS[study.kind]
    if isinstance(study, Own):
        about = study.study.replace("_", " ")
    said = write(study)
    if (said.lead or said.more) and study.n is not None and study.n < FEW:
        (said.lead or said.more).append(f"Few questions (n={study.n:,}): these intervals are rough.")
    return Claim(about, " ".join(said.lead), " ".join(said.more), study)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _questions(n: int | None, study: Study) -> int | None:
    """Questions behind a number: never more than the study has, for CoTs of one question are not independent."""
    known = [v for v in (n, study.n) if v is not None]
    return min(known) if known else None


# --- damage ------------------------------------------------------------------------------------------------------------


def headline(rows: Sequence[Damage], of: Callable[[Damage], Estimate]) -> Damage | None:
    """The row to put in words: deletion before others, at the severity nearest to 40 %, always one with an interval."""

    def rank(row: Damage) -> tuple[int, float, int]:
        name = row.name
        severity = 1.0 if row.severity is None else row.severity
        level = _LEVELS.index(row.level) if row.level in _LEVELS else len(_LEVELS)
        return 0 if name == "delete" else 1 if name in _DAMAGE else 2, round(abs(severity - HEADLINE), 9), level

    return min((row for row in rows if of(row).sign is not None and row.severity != 0), key=rank, default=None)


def _perturb(study: Perturb) -> _Said:
    said = _Said(_identity(study.rows))
    first = headline(study.rows, lambda row: row.drop_logprob)
    if first is not None:
        said.lead.append(_cost(first, study))
        meaning = _meaning(study.rows) or first
        said.more.extend([] if meaning is first else [_cost(meaning, study)])
        said.more.append(_how_many(study.rows))
    compared = headline(study.rows, lambda row: row.fragility)
    if compared is not None and study.against:
        said.lead.append(_fragility(compared, study))
    return said


def _meaning(rows: Sequence[Damage]) -> Damage | None:
    """A perturbation with meaning to put in words: the CoT replaced by another one or by filler, before gentler ones."""
    known = [row for row in rows if row.level == "meaning" and row.severity != 0 and row.drop_logprob.sign is not None]
    wanted = (next((row for row in known if word in row.name), None) for word in ("other", "filler"))
    return next((row for row in wanted if row), known[0] if known else None)


def _identity(rows: Sequence[Damage]) -> list[str]:
    wrong = [row for row in rows if row.severity == 0 and row.drop_logprob.mean not in (None, 0.0)]
    if not wrong:
        return []
    drop = wrong[0].drop_logprob.mean or 0.0
    return [
        f"The identity check fails: at severity 0, {wrong[0].label} has a drop of {drop:.3g} instead of 0. Do not trust any row."
    ]


def _verb(row: Damage) -> str:
    known = _DAMAGE.get(row.name)
    if known is not None and row.severity is not None:
        text = known.format(s=severity_text(row.severity)) + (" by tokens" if row.level == "token" else "")
    else:
        at = f" at {severity_text(row.severity)}" if row.severity not in (None, 1.0) else ""
        text = f"the perturbation “{row.name}”{at}"
    few = row.changed is not None and row.changed < _UNCHANGED
    return f"{text}, which changed only {percent_text(row.changed or 0)} of the CoTs," if few else text


def _cost(row: Damage, study: Study) -> str:
    drop, hits, n = row.drop_logprob, row.drop_accuracy, _questions(row.n, study)
    verb = _upper(_verb(row))
    if drop.sign == 0:
        start = f"{verb} has no measurable cost: {nats(drop, n)}"
    elif drop.sign == -1:
        start = f"{verb} does not hurt: it raises the answer's likelihood by {nats(opposite(drop), n)}"
    else:
        start = f"{verb} costs {nats(drop, n)}"
    if hits.sign is None:
        return f"{start}."
    if hits.sign == 0:
        return f"{start}; no measurable change of accuracy: {points(opposite(hits))}."
    if hits.sign == -1:
        return f"{start}; accuracy rises by {points(opposite(hits))}."
    return f"{start} and {points(hits, ' of accuracy')}." if drop.sign == 1 else f"{start}; accuracy falls by {points(hits)}."


def _how_many(rows: Sequence[Damage]) -> str:
    known = [row.drop_logprob.sign for row in rows if row.drop_logprob.sign is not None and row.severity != 0]
    hurt = sum(sign == 1 for sign in known)
    return (
        f"{hurt} of {len(known)} perturbations and severities have a measurable cost (interval above 0, each tested on its own)."
    )


def _fragility(row: Damage, study: Perturb) -> str:
    other, e, n = study.against, row.fragility, _questions(row.n, study)
    details = [text for text in (_SIGHT.get(other.conditioning, other.conditioning), other.checkpoint) if text]
    run = PurePath(other.run).name or "the other run"
    name = f"{run}{' (' + ', '.join(details) + ')' if details else ''}"
    if e.sign == 0:
        text = f"Against {name}: no measurable difference in the cost of {_verb(row)}, {nats(e, n)}."
    else:
        more, by = ("more", e) if e.sign == 1 else ("less", opposite(e))
        text = f"Against {name}: {_verb(row)} costs this run {more}, by {nats(by, n)}."
    if other.conditioning and other.conditioning == study.conditioning:
        text += f" Both runs are {_SIGHT.get(other.conditioning, other.conditioning)}, so this is not the paper's fragility."
    return text


# --- other readers -----------------------------------------------------------------------------------------------------


def _transfer(study: Transfer) -> _Said:
    last = max((p.step for p in study.points if p.checkpoint != BASE), default=None)
    at = [
        p
        for p in study.points
        if p.step == last and p.checkpoint != BASE and p.reader != ACTOR and p.vs_base.logprob.sign is not None
    ]
    if not at:
        return _Said()
    read = sum(p.vs_base.logprob.sign == 1 for p in at)
    sentences = [_reader(point, study) for point in at[:_MOST_READERS]]
    if len(at) == 1:
        return _Said([f"Read by another model: {sentences[0]}"])
    start = f"{read} of {len(at)} other models measurably gain from the CoTs of {at[0].checkpoint} over the base model's."
    rest = [f"{len(at) - _MOST_READERS} more readers are in the table."] if len(at) > _MOST_READERS else []
    return _Said([start], [*sentences, *rest])


def _reader(point: Point, study: Transfer) -> str:
    e, hits, n = point.vs_base.logprob, point.vs_base.accuracy, _questions(point.n, study)
    model = study.models.get(point.reader)
    name = point.reader if not model or model == point.reader else f"{point.reader} ({model})"
    if e.sign == 0:
        text = f"{name}: no measurable gain over the base model's CoTs, {nats(e, n)}"
    elif e.sign == 1:
        text = f"{name}: the gold answer gains {nats(e, n)} over the base model's CoTs"
    else:
        text = f"{name}: the gold answer loses {nats(opposite(e), n)} against the base model's CoTs"
    if hits.sign == 0:
        return f"{text}; no measurable change of its accuracy: {points(hits)}."
    if hits.sign is not None:
        return f"{text}; its accuracy {'rises' if hits.sign == 1 else 'falls'} by {points(hits if hits.sign == 1 else opposite(hits))}."
    return f"{text}."


# --- which words, where ------------------------------------------------------------------------------------------------


def _explain(study: Explain) -> _Said:
    heavy = sorted((k for k in study.by_kind if k.drop.sign == 1), key=lambda k: -(k.drop.mean or 0.0))
    idle = [
        k.kind + (f" ({k.questions:,} questions)" if k.questions is not None else "") for k in study.by_kind if k.drop.sign == 0
    ]
    helped = [k.kind for k in study.by_kind if k.drop.sign == -1]
    did = "replacing" if study.how == "replace" else "removing"
    said = [
        f"{_upper(did)} one {_unit(kind, study.unit)} costs {nats(kind.drop, kind.units, _units(kind))}." for kind in heavy[:2]
    ]
    if not heavy and (idle or helped):
        said.append(f"{_upper(did)} one {study.unit} has no measurable cost, whatever its kind.")
    elif idle:
        said.append(f"No measurable drop without: {', '.join(idle)}.")
    if helped:
        said.append(f"The answer gets likelier without: {', '.join(helped)}.")
    known = [p.drop.sign for p in study.by_position if p.drop.sign is not None]
    if known:
        said.append(
            f"{sum(s == 1 for s in known)} of {len(known)} stretches of the CoT, start to end, are measurably load-bearing."
        )
    return _Said(more=said)


def _units(kind: KindLoad) -> str:
    return "units" if kind.questions is None else f"units in {kind.questions:,} questions"


def _unit(kind: KindLoad, by: str) -> str:
    return by if kind.kind == by else f"{by} of the kind “{kind.kind}”"


# --- without the CoT ---------------------------------------------------------------------------------------------------


def _bypass(study: Bypass) -> _Said:
    e = study.bypass
    if e.sign is None:
        return _Said()
    n = next((r.survives.n for r in study.rows if spoken(r.control) == "empty" and "sees" in r.reader and r.survives.n), e.n)
    controls = [f"“{c}”" for c in dict.fromkeys(r.control for r in study.rows if spoken(r.control) != "own")]
    how = [f"Mean of the controls {', '.join(controls)}."] if len(controls) > 1 else []
    if e.sign == 0:
        text = f"With the question visible, no measurable share of the right answers survives without the CoT: {share(e, n)}."
    else:
        text = f"With the question visible, {share(e, n)} of the right answers survive without the CoT."
    few = n is not None and n < FEW <= (study.n or 0)
    rough = [f"Few right answers (n={n}): this interval is rough."] if few else []
    return _Said([text, *rough], how)


def _leak(study: Leak) -> _Said:
    if study.leaks.sign is None:
        return _Said()
    if study.leaks.sign == 0:
        said = [f"No measurable share of the CoTs contains the gold answer as a plain copy: {share(study.leaks, study.n)}."]
    else:
        said = [f"{share(study.leaks, study.n)} of the CoTs contain the gold answer as a plain copy."]
    if study.leaks_other.sign is not None:
        said.append(f"Another question's answer is there in {share(study.leaks_other, study.n)}, by chance.")
    whole, cut = study.accuracy, study.accuracy_cut_before
    if whole.sign is not None and cut.sign is not None:
        said.append(_cut("accuracy", whole, cut, share))
    elif study.logprob.sign is not None and study.logprob_cut_before.sign is not None:
        said.append(_cut("ln pi(a|CoT)", study.logprob, study.logprob_cut_before, nats))
    return _Said(more=said)


def _cut(what: str, whole: Estimate, cut: Estimate, text: Callable[[Estimate], str]) -> str:
    """Whole and cut CoTs have an interval each and none for their difference: only intervals apart count as a difference."""
    start = f"Reading only what comes before that copy, {what}"
    assert whole.low is not None
    assert whole.high is not None
    assert cut.low is not None
    assert cut.high is not None
    if cut.high < whole.low:
        return f"{start} falls from {text(whole)} to {text(cut)}."
    if cut.low > whole.high:
        return f"{start} rises from {text(whole)} to {text(cut)}."
    return f"{start} shows no clear change (the intervals overlap): {text(whole)} whole, {text(cut)} cut."


def _chains(study: Study) -> _Said:
    return _Said(*chain_sentences(study))


# --- changed on purpose, and drawn again -------------------------------------------------------------------------------


def _intervention(study: Intervention) -> _Said:
    own = {"markovian": "question hidden", "non_markovian": "sees the question"}.get(study.conditioning)
    known = [row for row in study.rows if row.follows.sign is not None and row.question.sign is not None]
    first = next((row for row in known if row.reader == own), known[0] if known else None)
    if first is None:
        return _Said()
    lead = [f"One number of the CoT changed and the rest recalculated, {_sight(first)}: {_three_ways(first)}."]
    if first.n is not None and first.n < FEW <= (study.n or 0):
        lead.append(f"Few CoTs had a number to change (n={first.n}): these intervals are rough.")
    return _Said(lead, [f"{_upper(_sight(row))}: {_three_ways(row)}." for row in known if row is not first])


def _sight(row: ThreeWay) -> str:
    return {"question hidden": "question hidden", "sees the question": "question visible"}.get(
        row.reader, row.reader or "reader ?"
    )


def _three_ways(row: ThreeWay) -> str:
    """`81 % [62, 100] (n=16) of the answers follow the changed CoT; none measurably stay with the question's: 0 % [0, 0]`"""
    if row.follows.sign == 0:
        follows = f"no measurable share of the answers follows the changed CoT: {share(row.follows, row.n)}"
    else:
        follows = f"{share(row.follows, row.n)} of the answers follow the changed CoT"
    if row.question.sign == 0:
        return f"{follows}; none measurably stay with the question's: {share(row.question)}"
    return f"{follows}; {share(row.question)} stay with the question's"


def _resample(study: Resample) -> _Said:
    ps = [s.p for cot in study.resampled for s in cot.sentences if s.p is not None]
    said: list[str] = []
    if ps:
        many = sum(p <= _ALPHA for p in ps)
        said.append(
            f"{many} of {len(ps)} sentences cause more than chance (p at most {_ALPHA}, each tested on its own; {_ALPHA * len(ps):.1f} would by "
            "chance)."
        )
    if study.rank_correlation.sign is not None:
        e = study.rank_correlation
        numbers = cell_text(e)
        alike = (
            "rank a CoT's sentences alike"
            if e.sign == 1
            else "rank them in opposite order"
            if e.sign == -1
            else "are not measurably correlated"
        )
        said.append(f"What sentences cause and what the reader loses without them {alike}: Spearman {numbers}.")
    how = [study.criterion, f"{study.k} continuations per sentence" if study.k is not None else ""]
    if said and any(how):
        said.append(f"({'; '.join(part for part in how if part)}.)")
    return _Said(more=said)


_WRITERS: dict[str, tuple[str, Callable[[Any], _Said]]] = {
    "perturb": ("damage", _perturb),
    "transfer": ("other readers", _transfer),
    "explain": ("which words", _explain),
    "bypass": ("bypass", _bypass),
    "leak": ("leakage", _leak),
    "chains": ("states of chains", _chains),
    "intervention": ("intervention", _intervention),
    "resample": ("what sentences cause", _resample),
    "own": ("your own study", lambda study: _Said(more=[study.question] if study.question else [])),
}
