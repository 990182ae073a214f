"""Chains in words: how far damage to a state travels, how old a fact the states still hold, which words survive."""

from __future__ import annotations

from collections.abc import Sequence

from markovlm.logs.study_records import Chains, Estimate, KnownShare, LagDamage, Study
from markovlm.report.loadbearing.words import nats, opposite, plain, severity_text, share

_SHOWN = 0.6  # the severity that is shown and put in words: at 100 % several perturbations leave the same, nothing
_FEW = 10  # readings under which an age is not put in words
_CHIEF = ("other_cot", "delete", "token_delete")  # perturbations to put in words, the first that is there


def chain_sentences(study: Study) -> tuple[list[str], list[str]]:
    """(for the run's one line, for under it). No number without its interval."""
    found = study.found
    assert isinstance(found, Chains)
    lead = [_travels(found), _held(found)]
    more = []
    if found.survival.sign is not None:
        one = "piece" if found.thinks else "state"
        more.append(f"{share(found.survival)} of a {one}'s words stand in the next one.")
    wrong = [row for row in found.damage if row.severity == 0 and row.drop.mean not in (None, 0.0)]
    if wrong:
        lead.insert(
            0, f"The identity check fails: at severity 0, {plain(wrong[0].perturbation)} has a drop and not 0. Trust no row."
        )
    return [text for text in lead if text], more


def chief_damage(found: Chains) -> dict[tuple[str, str], list[LagDamage]]:
    """(perturbation, what is predicted) -> rows by lag at the severity nearest to 60 %, answers first."""
    rows: dict[tuple[str, str], list[LagDamage]] = {}
    for row in sorted(found.damage, key=lambda row: row.predicted != "answer"):
        if row.severity:
            rows.setdefault((plain(row.perturbation), row.predicted.replace("_", " ")), []).append(row)
    at = {key: min((row.severity or 0.0 for row in own), key=lambda s: (abs(s - _SHOWN), s)) for key, own in rows.items()}
    return {key: sorted((row for row in own if row.severity == at[key]), key=lambda row: row.lag) for key, own in rows.items()}


def known_by(found: Chains) -> tuple[str, Sequence[KnownShare]]:
    """What answers are counted by: the age of their fact where it is known, else the state they are read from."""
    if found.by_age:
        return "age of the fact, chunks", found.by_age
    return ("piece" if found.thinks else "after chunk"), found.by_t


def _travels(found: Chains) -> str:
    """What the chief damage costs at once, and as late as it was measured."""
    chief = chief_damage(found)
    wanted = [plain(name) for name in _CHIEF]
    keys = sorted(chief, key=lambda key: (wanted.index(key[0]) if key[0] in wanted else len(wanted), key[1] != "answer"))
    for name, predicted in keys:
        rows = [row for row in chief[name, predicted] if row.drop.sign is not None]
        if not rows:
            continue
        one, many = ("piece", "pieces") if found.thinks else ("state", "chunks")
        first, last = rows[0], rows[-1]
        what = f"another {'question' if found.thinks else 'text'}'s {one} in its place" if name == "other cot" else f"“{name}”"
        text = f"Damage to a {one} ({what}, {severity_text(first.severity)}) {_cost(first, predicted)} {_when(first.lag, many)}"
        return f"{text}." if last is first else f"{text}, and {_cost(last, predicted)} {_when(last.lag, many)}."
    return ""


def _cost(row: LagDamage, predicted: str) -> str:
    token = "answer" if predicted == "answer" else "predicted"
    if row.drop.sign == 0:
        return f"has no measurable cost, {nats(row.drop, row.n, token=token)},"
    if row.drop.sign == -1:
        return f"helps by {nats(opposite(row.drop), row.n, token=token)}"
    return f"costs {nats(row.drop, row.n, token=token)}"


def _when(lag: int, many: str) -> str:
    return "where it is read at once" if lag == 0 else f"{lag} {many if lag > 1 else many[:-1]} later"


def _held(found: Chains) -> str:
    """How often answers are right: fresh and old facts, or the first and the last piece."""
    _, known = known_by(found)
    told = [k for k in known if k.accuracy.sign is not None and (k.n or 0) >= _FEW and (k.at >= 0)]
    if not told:
        return ""
    first, last = told[0], told[-1]
    if found.by_age:
        where, then = f"in the notes {_age(first)}", _age(last)
    elif found.thinks:
        where, then = f"read from piece {first.at}", f"from piece {last.at}"
    else:
        where, then = f"read after chunk {first.at}", f"after chunk {last.at}"
    text = f"The answer {where} is right in {share(_bounded(first.accuracy), first.n)}"
    return f"{text}." if last is first else f"{text}, {then} in {share(_bounded(last.accuracy), last.n)}."


def _age(known: KnownShare) -> str:
    return "right after its fact was read" if known.at == 0 else f"{known.at} chunk{'s' if known.at > 1 else ''} after it"


def _bounded(e: Estimate) -> Estimate:
    """A share, so that rounding shows nothing outside 0 to 100 %."""
    low, high = (None if v is None else min(1.0, max(0.0, v)) for v in (e.low, e.high))
    return Estimate(e.mean, low, high, e.n)
