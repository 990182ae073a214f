"""Chains in words: how long the damage to a state lasts, how old a fact the states still hold, which words survive."""

from __future__ import annotations

from markovlm.studies.chains import Chains, KnownShare, LagDamage, chief_damage, known_by
from markovlm.studies.fields import Estimate, est
from markovlm.studies.records import Study
from markovlm.studies.words import nats, opposite, severity_text, share, spoken

_FEW = 10  # readings under which an age is not put in words
_CHIEF = ("other_cot", "delete", "token_delete")  # perturbations to put in words, the first that is there


def chain_sentences(study: Study) -> tuple[list[str], list[str]]:
    """(for the run's one line, for under it). No number without its interval."""
    assert isinstance(study, Chains)
    found = study
    lead = [_travels(found), _held(found)]
    more = []
    if found.words.survival.sign is not None:
        one = "piece" if found.thinks else "state"
        more.append(f"{share(found.words.survival)} of a {one}'s words are also in the next one.")
    wrong = [row for row in found.damage.rows if row.severity == 0 and row.drop_logprob.mean not in (None, 0.0)]
    if wrong:
        lead.insert(
            0,
            f"The identity check fails: at severity 0, {spoken(wrong[0].perturbation)} has a drop instead of 0. Do not trust any row.",
        )
    return [text for text in lead if text], more


def _travels(found: Chains) -> str:
    """What the chief damage costs at once, and as late as it was measured."""
    chief = chief_damage(found)
    wanted = [spoken(name) for name in _CHIEF]
    keys = sorted(chief, key=lambda key: (wanted.index(key[0]) if key[0] in wanted else len(wanted), key[1] != "answer"))
    for name, predicted in keys:
        rows = [row for row in chief[name, predicted] if row.drop_logprob.sign is not None]
        if not rows:
            continue
        one, many = ("piece", "pieces") if found.thinks else ("state", "chunks")
        first, last = rows[0], rows[-1]
        what = f"another {'question' if found.thinks else 'text'}'s {one} in its place" if name == "other cot" else f"“{name}”"
        text = f"Perturbing a {one} ({what}, {severity_text(first.severity)}) {_cost(first, predicted)} {_when(first.lag, many)}"
        return f"{text}." if last is first else f"{text}, and {_cost(last, predicted)} {_when(last.lag, many)}."
    return ""


def _cost(row: LagDamage, predicted: str) -> str:
    token = "answer" if predicted == "answer" else "predicted"
    if row.drop_logprob.sign == 0:
        return f"has no measurable cost, {nats(row.drop_logprob, row.n, token=token)},"
    if row.drop_logprob.sign == -1:
        return f"helps by {nats(opposite(row.drop_logprob), row.n, token=token)}"
    return f"costs {nats(row.drop_logprob, row.n, token=token)}"


def _when(lag: int, many: str) -> str:
    return "when it is read at once" if lag == 0 else f"{lag} {many if lag > 1 else many[:-1]} later"


def _held(found: Chains) -> str:
    """How often answers are right: fresh and old facts, or the first and the last piece."""
    _, known = known_by(found)
    certain = [k for k in known if k.accuracy.sign is not None and (k.n or 0) >= _FEW and (k.at >= 0)]
    if not certain:
        return ""
    first, last = certain[0], certain[-1]
    if found.facts.by_age:
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
    return est(e.mean, low, high, e.n)
