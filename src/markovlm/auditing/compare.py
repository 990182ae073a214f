"""Groups against each other, readers against each other, and the order of the groups. Pure: numbers in, JSON out.

Groups are paired where they share questions: the difference is formed for each question (means over its CoTs) and questions are
resampled. If they share none, each group's questions are resampled separately. p is that of a sign-flip or permutation test over
questions, adjusted over the whole table by Benjamini and Hochberg: stars follow the adjusted p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from markovlm.analysis.study import CHANGE, RATE, estimate, estimate_some
from markovlm.auditing.measures import CARRIED, MEASURES, Values
from markovlm.auditing.reading import ReaderRead
from markovlm.runs.rows import clean
from markovlm.statistics import RESAMPLES, benjamini_hochberg, permutation_p, sign_flip_p, wilson

MOST_PAIRED = 4  # groups up to which every pair is compared; of more, each with the first
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_FEW = 5  # questions of a group below which nothing is compared


def comparison(values: Mapping[tuple[str, str], Mapping[str, Values]], groups: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """`values`: (reader, group) -> measure -> values by CoT. One row a pair of groups, reader and measure: later minus earlier."""
    pairs = list(combinations(groups, 2)) if len(groups) <= MOST_PAIRED else [(groups[0], other) for other in groups[1:]]
    rows: list[dict[str, Any]] = []
    for reader in dict.fromkeys(reader for reader, _ in values):
        for first, second in pairs:
            if (reader, first) not in values or (reader, second) not in values:
                continue
            for name in MEASURES:
                row = _compared(values[reader, first].get(name), values[reader, second].get(name), seed)
                if row is not None:
                    rows.append({"reader": reader, "group": second, "against": first, "measure": name, **row})
    for row, q in zip(rows, benjamini_hochberg([row["p"] for row in rows]), strict=True):
        row["q"] = q
        row["stars"] = next((stars for level, stars in STARS if q < level), "")
    return rows


def _compared(ours: Values | None, theirs: Values | None, seed: int) -> dict[str, Any] | None:
    """`theirs` minus `ours`."""
    if ours is None or theirs is None:
        return None
    a, b = ours.by_question(), theirs.by_question()
    shared = [question for question in a if question in b]
    if len(shared) >= max(_FEW, 0.5 * min(len(a), len(b))):
        differences = [b[question] - a[question] for question in shared]
        found = estimate(differences, shared, seed, None if ours.within is None else CHANGE)
        return {"paired": True, "n": len(shared), "difference": found, "p": sign_flip_p(differences, None, seed)}
    if min(len(a), len(b)) < _FEW:
        return None
    first, second = np.array(list(a.values())), np.array(list(b.values()))
    rates = ours.within is not None and (np.ptp(first) == 0 or np.ptp(second) == 0)  # a bootstrap shows no spread
    found = _newcombe(first, second) if rates else _apart(first, second, seed)
    p = permutation_p(second.tolist(), first.tolist(), None, None, seed)
    return {"paired": False, "n": len(a) + len(b), "difference": found, "p": p}


def _apart(first: NDArray[np.float64], second: NDArray[np.float64], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(part), size=(RESAMPLES, len(part))) for part in (first, second)]
    differences = second[draws[1]].mean(axis=1) - first[draws[0]].mean(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975]).tolist()
    return clean({"mean": float(second.mean() - first.mean()), "ci95": [low, high]})


def _newcombe(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, Any]:
    """Of two rates, from Wilson's interval of each (Newcombe 1998, Statistics in Medicine 17, method 10); means over CoTs count as shares."""
    (a, b) = (float(first.mean()), float(second.mean()))
    (a_low, a_high), (b_low, b_high) = (wilson(round(rate * len(part)), len(part)) for rate, part in ((a, first), (b, second)))
    low, high = b - a - math.hypot(b - b_low, a_high - a), b - a + math.hypot(b_high - b, a - a_low)
    return clean({"mean": b - a, "ci95": [low, high]})


# ------------------------------------------------------------------------------------------------------------- readers


def agreement(reads: Sequence[ReaderRead], group: str, seed: int) -> list[dict[str, Any]]:
    """For each pair of readers: on what share of the CoTs do they give the same verdict, beyond chance (Cohen's kappa), and how well the
    likelihoods rank alike (Spearman). Intervals from drawing questions."""
    rows: list[dict[str, Any]] = []
    for one, other in combinations([read for read in reads if group in read.groups], 2):
        mine = {cot.key: scored for cot, scored in zip(one.groups[group].cots, one.groups[group].alone, strict=True)}
        pairs = [
            (cot.key[0], mine[cot.key], scored)
            for cot, scored in zip(other.groups[group].cots, other.groups[group].alone, strict=True)
            if cot.key in mine
        ]
        questions = [question for question, _, _ in pairs]
        verdicts = [None if a.right is None or b.right is None else (a.right, b.right) for _, a, b in pairs]
        same = [None if v is None else float(v[0] == v[1]) for v in verdicts]
        judged = [(q, *v) for q, v in zip(questions, verdicts, strict=True) if v is not None]
        likely = [(q, a.logprob, b.logprob) for q, a, b in pairs]
        rows.append(
            {
                "group": group,
                "readers": [one.reader, other.reader],
                "n": len(set(questions)),
                "same_verdict": estimate_some(same, questions, seed, RATE),
                "kappa": _drawn(judged, _kappa, seed),
                "spearman": _drawn(likely, _spearman, seed),
            }
        )
    return rows


_Triple = tuple[str, float, float]  # question, one reader's value, the other's
_DRAWS = 1000


def _drawn(triples: Sequence[_Triple], statistic: Callable[[NDArray[np.float64]], float], seed: int) -> dict[str, Any] | None:
    """A statistic of pairs with a percentile interval over questions; None if it is not defined."""
    if len(triples) < _FEW:
        return None
    table = np.array([(a, b) for _, a, b in triples])
    mean = statistic(table)
    members: dict[str, list[int]] = {}
    for i, (question, _, _) in enumerate(triples):
        members.setdefault(question, []).append(i)
    groups = list(members.values())
    rng = np.random.default_rng(seed)
    found = [
        statistic(table[[i for g in rng.integers(len(groups), size=len(groups)).tolist() for i in groups[g]]])
        for _ in range(_DRAWS)
    ]
    finite = [value for value in found if np.isfinite(value)]
    if not np.isfinite(mean) or len(finite) < _DRAWS // 2:
        return None
    low, high = np.quantile(finite, [0.025, 0.975]).tolist()
    return {"mean": mean, "ci95": [low, high]}


def _kappa(table: NDArray[np.float64]) -> float:
    """Cohen 1960: agreement beyond what the two rates make by chance; nan where a reader always says the same."""
    if (np.ptp(table, axis=0) == 0).any():
        return float("nan")
    seen = float(np.mean(table[:, 0] == table[:, 1]))
    a, b = table.mean(axis=0).tolist()
    chance = a * b + (1 - a) * (1 - b)
    return (seen - chance) / (1 - chance)


def _spearman(table: NDArray[np.float64]) -> float:
    from scipy import stats

    ranks = np.column_stack([stats.rankdata(table[:, 0]), stats.rankdata(table[:, 1])])
    if (ranks.std(axis=0) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks.T)[0, 1])


# --------------------------------------------------------------------------------------------------------------- order


def ranking(
    groups: Sequence[Mapping[str, Any]], reader: str, values: Mapping[tuple[str, str], Mapping[str, Values]], seed: int
) -> list[dict[str, Any]]:
    """Groups by what their CoTs carry for the answer, the best first; `values` as in `comparison`.

    `carried`: right from the CoT as it is read, where a CoT that is the bare answer and nothing else counts as wrong (it hands the
    answer on without a reason); less what is right without it. Tasks without an extractor: the same in nats. Every two groups are
    tested on that (adjusted over the pairs): `rank` is 1 + the groups that carry more, `rank_to` the number less those that carry less,
    so groups that can't be distinguished share ranks. In the list, of groups with the same number, those that carry more before they
    state the answer come first, then those with text of their own; then empty ones, and bare answers last.
    """
    rows = []
    for entry in groups:
        found = next((one for one in entry["readers"] if one["reader"] == reader), None)
        if found is None:
            continue
        unit = "accuracy" if found["carried"]["accuracy"] is not None else "logprob"
        gain, reasoned = found["carried"][unit], found["reasoned_gain"][unit]
        text = entry["text"]
        rows.append(
            {
                "group": entry["group"],
                "reader": reader,
                "unit": unit,
                "n": found["n"],
                "carried": gain,
                "above_nothing": _above(gain) > 0,
                "before_answer": reasoned,
                "with_text": 1 - text["empty"]["mean"] - text["bare_answer"]["mean"],
                "bare_answer": text["bare_answer"]["mean"],
            }
        )
    rows.sort(key=lambda row: (-_above(row["carried"]), -_above(row["before_answer"]), -row["with_text"], row["bare_answer"]))
    more = _carry_more([row["group"] for row in rows], reader, values, CARRIED[rows[0]["unit"]], seed) if rows else {}
    return [
        {
            "rank": 1 + sum(row["group"] in less for less in more.values()),
            "rank_to": len(rows) - len(more[row["group"]]),
            **row,
        }
        for row in rows
    ]


def _carry_more(
    groups: Sequence[str], reader: str, values: Mapping[tuple[str, str], Mapping[str, Values]], measure: str, seed: int
) -> dict[str, set[str]]:
    """Group -> those that carry less, by a test of every pair, adjusted by Benjamini and Hochberg."""
    pairs = list(combinations(groups, 2))
    tested = [_compared(values[reader, a].get(measure), values[reader, b].get(measure), seed) for a, b in pairs]
    found = [(pair, row) for pair, row in zip(pairs, tested, strict=True) if row is not None]
    less: dict[str, set[str]] = {group: set() for group in groups}
    for ((a, b), row), q in zip(found, benjamini_hochberg([row["p"] for _, row in found]), strict=True):
        if q < STARS[-1][0]:
            better, worse = (b, a) if row["difference"]["mean"] > 0 else (a, b)
            less[better].add(worse)
    return less


def _above(gain: Mapping[str, Any]) -> float:
    """The mean, where its whole interval is above 0; else 0."""
    low = gain["ci95"][0]
    return gain["mean"] if low is not None and low > 0 else 0.0
