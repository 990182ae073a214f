"""What a sentence of a CoT *causes*: cut before it, let the writer continue from there again, and compare the answers.

Counterfactual resampling (Thought Anchors, arXiv 2506.19143). Of a CoT with sentences 1..n, K continuations are drawn at each of the n+1
cuts. Those from behind sentence i keep it; of those from before it, the ones whose new sentence i *differs* lack it (the criterion is
part of the result). With p and q the distributions of final answers with and without the sentence,

    KL = sum_a p(a) ln(p(a)/q(a))      counts smoothed by adding `smoothing` to each of the answers seen in either, nats
    TV = 1/2 sum_a |p(a) - q(a)|       of the counts as they are
    difference of accuracy             right with less right without

Intervals are 95 % percentile bootstraps over the continuations. Both divergences are above 0 by chance alone: `chance` is the mean TV of the
same continuations dealt at random, `p` how often that is at least as large. Occlusion (`explain`) beside it says what the *reader* uses.
A cut is sampled once and serves twice, as "with" of the sentence before it and as "without" of the one behind it.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from markovlm.analysis.attribution import TENTHS, Attribution
from markovlm.analysis.explain import Manner, attribute, pieces_of
from markovlm.analysis.fragility import RAW, whole
from markovlm.analysis.scoring import Scored, Variant
from markovlm.analysis.segments import sentences
from markovlm.analysis.study import Study, StudyCot, bar, estimate_some, kept_rows, open_folder
from markovlm.analysis.units import Unit, units_of
from markovlm.errors import UserError
from markovlm.rollouts.streams import stream
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.tasks.folds import normalized

NO_ANSWER = "(no answer)"
LEVEL = 0.05  # of p, from which on a sentence is said to cause something
_ALTERNATIVES = 5  # of a sentence that are kept
_DRAWS = 2000  # of bootstrap and permutation
_EDGES = " \t\r\n.,;:!?-*\"'"


@dataclass(frozen=True, slots=True)
class Resampling:
    """How resampling is done."""

    k: int = 20  # continuations of each cut
    below: float = 1.0  # a new sentence differs where its similarity to the old one is below this; 1: where they are not equal
    smoothing: float = 0.5  # added to the count of each answer, for KL

    def __post_init__(self) -> None:
        if self.k < 2:
            raise UserError(f"--resamples {self.k}: must be at least 2")
        if not 0 < self.below <= 1:
            raise UserError(f"--different-below {self.below:g}: must be above 0 and at most 1")

    @property
    def criterion(self) -> str:
        equal = "case, white space and punctuation at the ends apart"
        if self.below == 1:
            return f"a new sentence differs where it is not equal to the old one, {equal}"
        return f"a new sentence differs where its similarity to the old one (difflib ratio, {equal}) is below {self.below:g}"

    def differs(self, old: str, new: str) -> bool:
        """Whether this is a different sentence."""
        a, b = normalized(old).strip(_EDGES), normalized(new).strip(_EDGES)
        return a != b and (self.below == 1 or difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() < self.below)


@dataclass(frozen=True, slots=True)
class Importance:
    """Of one sentence. None if no continuation lacks it (the writer always writes it), or no answer is judged."""

    text: str
    start: float  # fraction of the CoT's tokens before it
    occlusion: float  # ln pi(a|z) less that without it, nats per answer token
    kept: int  # continuations with it
    lacking: int  # continuations from before it whose new sentence differs
    kl: dict[str, Any] | None
    tv: dict[str, Any] | None
    chance: float | None
    p: float | None
    accuracy_with: float | None
    accuracy_without: float | None
    accuracy_drop: dict[str, Any] | None
    # what stood in its place, most frequent first: {"text", "count", "answers": {answer: count}}
    alternatives: tuple[dict[str, Any], ...] = ()

    @property
    def causes(self) -> float:
        """TV of a sentence whose continuations answer otherwise than chance explains (p at most `LEVEL`), else 0."""
        return self.tv["mean"] if self.tv is not None and self.p is not None and self.p <= LEVEL else 0.0


@dataclass(frozen=True, slots=True)
class Resampled:
    """One CoT with its sentences."""

    id: str
    question: str
    gold: str
    cot: str
    answer: str | None
    correct: bool | None
    sentences: tuple[Importance, ...]
    attribution: Attribution  # occlusion of the same sentences

    def to_json(self) -> dict[str, Any]:
        """Without the attribution: its drops are in the sentences."""
        names = ("id", "question", "gold", "cot", "answer", "correct")
        return {name: getattr(self, name) for name in names} | {"sentences": [asdict(one) for one in self.sentences]}


@dataclass(frozen=True, slots=True)
class _Cut:
    """A place in a CoT and what may follow it."""

    cot: StudyCot
    number: int  # sentences before it
    prefix: tuple[int, ...]
    budget: int  # tokens that may follow

    @property
    def digest(self) -> str:
        return hashlib.blake2b(" ".join(map(str, self.prefix)).encode(), digest_size=6).hexdigest()

    @property
    def key(self) -> tuple[Any, ...]:
        return self.cot.example.id, self.cot.number, self.number, self.digest


def resample(
    study: Study, cots: Sequence[StudyCot], how: Resampling, say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], list[Resampled]]:
    """Every sentence of every CoT: JSON result and the CoTs. Raises UserError for a task whose answers are not extracted."""
    if not study.setup.task.extractors:
        raise UserError(f"--how resample: task {study.label.task} has no answers to read from text, only likelihoods")
    units = [units_of(pieces_of(study.setup.prompter, cot.ids), "sentence") for cot in cots]
    cuts = [_cuts(study, cot, own) for cot, own in zip(cots, units, strict=True)]
    all_cuts = [cut for own in cuts for cut in own]
    cost = _cost(all_cuts, how)
    say(
        f"resampling: K = {how.k} continuations at each of {cost['cuts']} cuts of {len(cots)} CoTs: at most {cost['samples']:,} continuations, "
        f"{cost['tokens']:,} tokens; {how.criterion}"
    )
    drawn = _continuations(study, all_cuts, how)
    read = _answers(study, all_cuts, drawn)
    occluded = attribute(study, cots, Manner("sentence", "remove"))
    own = study.read([whole(study, cot, RAW) for cot in cots], "answers")
    found = [
        _resampled(study, cot, units[i], [(drawn[cut.key], read[cut.key]) for cut in cuts[i]], (occluded[i], own[i]), how)
        for i, cot in enumerate(cots)
    ]
    result = {
        **study.header("resample"),
        "n": len({cot.example.id for cot in cots}),
        "k": how.k,
        "criterion": how.criterion,
        "smoothing": how.smoothing,
        "cost": cost,
        **_summary(found, study.how.seed),
        "cots": [one.to_json() for one in found],
    }
    return result, found


def _cuts(study: Study, cot: StudyCot, units: Sequence[Unit]) -> list[_Cut]:
    """Before each sentence, and behind the last."""
    places = [unit.positions[0] for unit in units] + [len(cot.ids)]
    budget = study.how.cot_tokens
    return [_Cut(cot, number, cot.ids[:place], max(0, budget - place)) for number, place in enumerate(places)]


def _cost(cuts: Sequence[_Cut], how: Resampling) -> dict[str, int]:
    samples = how.k * sum(cut.budget > 0 for cut in cuts)
    return {"cuts": len(cuts), "samples": samples, "tokens": how.k * sum(cut.budget for cut in cuts)}


# ------------------------------------------------------------------------------------------------------- continuations

_Drawn = list[tuple[int, ...]]


def _continuations(study: Study, cuts: Sequence[_Cut], how: Resampling) -> dict[tuple[Any, ...], _Drawn]:
    """K continuations of each cut; number k comes from the stream (seed, "resample", question, CoT, cut, k), whatever else is drawn."""
    file = f"resamples-{study.label.file}"
    known = _kept(study, file)
    todo: list[tuple[_Cut, int]] = []
    for cut in cuts:
        have = known.setdefault(cut.key, [])
        if cut.budget == 0:
            have[:] = [()] * how.k
        elif len(have) < how.k:
            todo.append((cut, len(have)))
    todo.sort(key=lambda item: item[0].budget)
    size = max(1, study.setup.config.evaluation.batch_size // how.k)
    with bar(study.reader.counting, f"{study.target.checkpoint}: resampling", len(todo)) as advance:
        for at in range(0, len(todo), size):
            batch = todo[at : at + size]
            rows = []
            for (cut, first), fresh in zip(batch, _sample(study, batch, how), strict=True):
                known[cut.key] += fresh
                ident = {"id": cut.cot.example.id, "cot": cut.cot.number, "cut": cut.number, "digest": cut.digest}
                rows.append({**ident, "from": first, "drawn": [list(ids) for ids in fresh]})
            open_folder(study.folder).append(file, rows)
            advance(len(batch))
    return {cut.key: known[cut.key][: how.k] for cut in cuts}


def _sample(study: Study, batch: Sequence[tuple[_Cut, int]], how: Resampling) -> list[_Drawn]:
    """All at the largest budget of the batch; what is over a cut's own is dropped, which changes no draw."""
    prompter = study.setup.prompter
    requests = [
        SampleRequest(
            prompter.cot_prompt(cut.cot.example) + cut.prefix,
            tuple(
                (study.how.seed, "resample", cut.cot.example.id, cut.cot.number, cut.number, cut.digest, k)
                for k in range(first, how.k)
            ),
        )
        for cut, first in batch
    ]
    most = max(cut.budget for cut, _ in batch)
    decoding = Decoding(most, study.how.temperature or 1.0, study.how.fixed_length, study.how.stop)
    groups = study.setup.sampler().sample(requests, decoding)
    return [[one.ids[: cut.budget] for one in group] for (cut, _), group in zip(batch, groups, strict=True)]


def _kept(study: Study, file: str) -> dict[tuple[Any, ...], _Drawn]:
    found: dict[tuple[Any, ...], _Drawn] = {}
    for row in kept_rows(study.folder / file):
        have = found.setdefault((row["id"], row["cot"], row["cut"], row["digest"]), [])
        if row["from"] == len(have):
            have += [tuple(ids) for ids in row["drawn"]]
    return found


def _answers(study: Study, cuts: Sequence[_Cut], drawn: Mapping[tuple[Any, ...], _Drawn]) -> dict[tuple[Any, ...], list[Scored]]:
    """The answer read from each prefix with its continuations; CoTs that come to the same tokens are read once."""
    variants = [
        Variant(cut.cot.example, cut.cot.number, f"resample {cut.number}.{k}", cut.prefix + ids, cut.cot.ids, study.conditioning)
        for cut in cuts
        for k, ids in enumerate(drawn[cut.key])
    ]
    read = iter(study.read(variants, "resampled CoTs"))
    return {cut.key: [next(read) for _ in drawn[cut.key]] for cut in cuts}


# ------------------------------------------------------------------------------------------------------- one CoT's result


def _resampled(
    study: Study,
    cot: StudyCot,
    units: Sequence[Unit],
    cuts: Sequence[tuple[_Drawn, Sequence[Scored]]],
    whole_cot: tuple[Attribution, Scored],
    how: Resampling,
) -> Resampled:
    occluded, own = whole_cot
    text = study.setup.prompter.text
    found = []
    for i, unit in enumerate(units):
        before = cot.ids[: unit.positions[0]]
        others = [
            (sentence, scored)
            for ids, scored in zip(*cuts[i], strict=True)
            if how.differs(unit.text, sentence := first_sentence(text(before), text(before + ids)))
        ]
        lacking = [scored for _, scored in others]
        rng = stream(study.how.seed, "importance", cot.example.id, cot.number, i)
        one = _importance(unit, len(cot.ids), occluded.units[i].drop, cuts[i + 1][1], lacking, how, rng)
        found.append(replace(one, alternatives=alternatives(others)))
    return Resampled(
        cot.example.id, cot.example.question, cot.example.answer, cot.text, own.extracted, own.correct, tuple(found), occluded
    )


def alternatives(others: Sequence[tuple[str, Scored]]) -> tuple[dict[str, Any], ...]:
    """The sentences written in place of one, those alike but for case and edges together: text, how often, and the answers that came of it."""
    alike: dict[str, list[tuple[str, Scored]]] = {}
    for sentence, scored in others:
        alike.setdefault(normalized(sentence).strip(_EDGES), []).append((sentence, scored))
    often = sorted(alike.values(), key=len, reverse=True)[:_ALTERNATIVES]
    return tuple(
        {"text": own[0][0], "count": len(own), "answers": dict(Counter(_answer(scored) for _, scored in own).most_common())}
        for own in often
    )


def first_sentence(prefix: str, text: str) -> str:
    """The sentence of `text` that begins where `prefix` ends; empty if nothing follows."""
    if not text.startswith(prefix):
        prefix, text = "", text[len(prefix) :]
    at = 0
    for sentence in sentences(text):
        at += len(sentence)
        if at > len(prefix):
            return text[len(prefix) : at]
    return ""


def _importance(
    unit: Unit,
    tokens: int,
    occlusion: float,
    kept: Sequence[Scored],
    lacking: Sequence[Scored],
    how: Resampling,
    rng: np.random.Generator,
) -> Importance:
    place = unit.positions[0] / max(1, tokens)
    if not lacking:
        rate = _accuracy(kept)
        return Importance(unit.text, place, occlusion, len(kept), 0, None, None, None, None, rate, None, None)
    names = sorted({_answer(one) for one in [*kept, *lacking]})
    a, b = _counts(kept, names), _counts(lacking, names)
    right = {_answer(one): float(bool(one.correct)) for one in [*kept, *lacking]}
    r = np.array([right[name] for name in names])
    drawn_a = rng.multinomial(int(a.sum()), a / a.sum(), size=_DRAWS).astype(float)
    drawn_b = rng.multinomial(int(b.sum()), b / b.sum(), size=_DRAWS).astype(float)
    tv = float(total_variation(a, b))
    mixed = rng.multivariate_hypergeometric((a + b).astype(int), int(b.sum()), size=_DRAWS).astype(float)
    chance = total_variation((a + b)[None] - mixed, mixed)
    return Importance(
        text=unit.text,
        start=place,
        occlusion=occlusion,
        kept=len(kept),
        lacking=len(lacking),
        kl=_with_ci(float(divergence(a, b, how.smoothing)), divergence(drawn_a, drawn_b, how.smoothing)),
        tv=_with_ci(tv, total_variation(drawn_a, drawn_b)),
        chance=float(chance.mean()),
        p=(1 + int(np.sum(chance >= tv - 1e-12))) / (1 + _DRAWS),
        accuracy_with=_accuracy(kept),
        accuracy_without=_accuracy(lacking),
        accuracy_drop=_with_ci(float(_share(a) @ r - _share(b) @ r), _share(drawn_a) @ r - _share(drawn_b) @ r),
    )


def divergence(a: NDArray[np.float64], b: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    """KL(a || b) in nats of counts [..., V] over the same answers, `smoothing` added to each."""
    p, q = _share(a + smoothing), _share(b + smoothing)
    return (p * np.log(p / q)).sum(-1)


def total_variation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the absolute difference of two distributions given as counts [..., V]."""
    return 0.5 * np.abs(_share(a) - _share(b)).sum(-1)


def _share(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / counts.sum(-1, keepdims=True)


def _counts(scored: Sequence[Scored], names: Sequence[str]) -> NDArray[np.float64]:
    found = Counter(map(_answer, scored))
    return np.array([found[name] for name in names], dtype=float)


def _answer(one: Scored) -> str:
    return NO_ANSWER if one.extracted is None else one.extracted


def _accuracy(scored: Sequence[Scored]) -> float | None:
    return sum(bool(one.correct) for one in scored) / len(scored) if scored else None


def _with_ci(value: float, drawn: NDArray[np.float64]) -> dict[str, Any]:
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return {"mean": value, "ci95": [low, high]}


# ------------------------------------------------------------------------------------------------------------ over many


def _summary(found: Sequence[Resampled], seed: int) -> dict[str, Any]:
    """Means over sentences by place in the CoT, and how far the two maps rank sentences alike. Intervals over questions."""
    placed = [(one.id, s) for one in found for s in one.sentences]
    return {
        "sentences": len(placed),
        "without_counterfactual": sum(s.lacking == 0 for _, s in placed),
        "by_position": [
            {
                "from": i / TENTHS,
                "to": (i + 1) / TENTHS,
                "sentences": len(own),
                **{
                    name: estimate_some([value(s) for _, s in own], [q for q, _ in own], seed)
                    for name, value in (
                        ("tv", lambda s: s.tv and s.tv["mean"]),
                        ("chance", lambda s: s.chance),
                        ("kl", lambda s: s.kl and s.kl["mean"]),
                        ("accuracy_drop", lambda s: s.accuracy_drop and s.accuracy_drop["mean"]),
                        ("occlusion", lambda s: s.occlusion),
                    )
                },
            }
            for i in range(TENTHS)
            for own in [[(q, s) for q, s in placed if min(int(s.start * TENTHS), TENTHS - 1) == i]]
        ],
        "rank_correlation": _rank_correlation(found, seed),
    }


def _rank_correlation(found: Sequence[Resampled], seed: int) -> dict[str, Any] | None:
    """Mean over CoTs of Spearman's rho between occlusion and TV of their sentences; CoTs of fewer than three are left out."""
    from scipy import stats

    rhos: list[tuple[str, float]] = []
    for one in found:
        pairs = [(s.occlusion, s.tv["mean"]) for s in one.sentences if s.tv is not None]
        if len(pairs) >= 3 and all(len(set(column)) > 1 for column in zip(*pairs, strict=True)):
            library: Any = stats
            rho = float(library.spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)
            if math.isfinite(rho):
                rhos.append((one.id, rho))
    mean = estimate_some([rho for _, rho in rhos], [q for q, _ in rhos], seed)
    return mean and mean | {"cots": len(rhos)}
