"""What the files of RUN/loadbearing/ say, read and checked. Log-likelihoods and drops are in nats per answer token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KINDS = ("perturb", "transfer", "explain", "bypass", "leak", "chains", "intervention", "resample")
ACTOR = "actor"  # the reader that is the trained model itself
BASE = "base"  # the checkpoint that is the untrained model


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval. Without the interval it is shown, but nothing is claimed from it."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def sign(self) -> int | None:
        """1 or -1 where the interval is wholly above or below 0, 0 where it contains 0, None where mean or interval is missing."""
        if self.mean is None or self.low is None or self.high is None:
            return None
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True, slots=True)
class Damage:
    """One perturbation at one severity. drop = ln pi(a|z) - ln pi(a|p(z)); fragility = this run's drop less the other run's."""

    perturbation: str
    level: str  # character, token, meaning
    severity: float | None
    n: int | None
    changed: float | None  # share of CoTs that the perturbation changed
    drop: Estimate
    accuracy: Estimate  # drop of accuracy, 0.55 = 55 points
    fragility: Estimate
    fragility_accuracy: Estimate
    by: str = ""  # the model that paraphrased, where it was one

    @property
    def name(self) -> str:
        """`token_truncate_back` -> `truncate back`; the level is said apart."""
        name = self.perturbation.replace("_", " ").replace("-", " ").strip().lower()
        return name.removeprefix(f"{self.level} ") if self.level else name

    @property
    def label(self) -> str:
        name = f"{self.name} by {self.by}" if self.by else self.name
        return f"{name} ({self.level})" if self.level else name


@dataclass(frozen=True, slots=True)
class Against:
    """The other run of a fragility."""

    run: str
    checkpoint: str
    conditioning: str
    model: str


@dataclass(frozen=True, slots=True)
class Perturb:
    """Damage to the CoT."""

    rows: tuple[Damage, ...]
    against: Against | None
    round_trip: Estimate  # what decode and encode alone cost
    round_trip_changed: float | None
    intact: Estimate
    intact_accuracy: Estimate
    other_accuracy: Estimate  # of the other run with its intact CoTs


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint's CoTs, read by one reader. `gain` is over the base model's CoTs read by the same reader."""

    checkpoint: str
    step: int
    reader: str
    n: int | None
    logprob: Estimate
    accuracy: Estimate
    gain: Estimate
    gain_accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of a reader's curve with the actor's, over `n` checkpoints."""

    reader: str
    spearman: float | None
    n: int | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """Other models reading the CoTs."""

    models: dict[str, str]  # reader -> model
    points: tuple[Point, ...]
    correlations: tuple[Correlation, ...]


@dataclass(frozen=True, slots=True)
class KindLoad:
    """Units of one kind. `share` of the whole load, `share_of_units` of all units."""

    kind: str
    units: int | None
    questions: int | None  # that have such a unit
    drop: Estimate
    share: float | None
    share_of_units: float | None


@dataclass(frozen=True, slots=True)
class PositionLoad:
    """Units between two places of the CoT, 0 its start and 1 its end."""

    start: float
    end: float
    units: int | None
    drop: Estimate


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of one CoT; `drop` is exact for that CoT, so it has no interval."""

    text: str
    kind: str
    drop: float | None


@dataclass(frozen=True, slots=True)
class Explained:
    """One CoT, unit by unit. `drop` is of ln pi(target|CoT)."""

    id: str
    question: str
    gold: str
    answer: str
    correct: bool | None
    target: str
    logprob: float | None
    units: tuple[Unit, ...]


@dataclass(frozen=True, slots=True)
class Explain:
    """Which parts of the CoT carry the answer."""

    by: str  # token, word, sentence
    how: str  # remove, replace
    kinds: tuple[KindLoad, ...]
    positions: tuple[PositionLoad, ...]
    examples: tuple[Explained, ...]


@dataclass(frozen=True, slots=True)
class Control:
    """The CoT replaced. `survives`: share still right, among those right with the own CoT."""

    control: str  # own, empty, other, filler
    reader: str  # "sees the question", "question hidden"
    n: int | None
    accuracy: Estimate
    logprob: Estimate
    survives: Estimate


@dataclass(frozen=True, slots=True)
class Bypass:
    """How far the answer survives without the CoT. `bypass`: with the question visible, mean over the controls."""

    rows: tuple[Control, ...]
    bypass: Estimate


@dataclass(frozen=True, slots=True)
class Leak:
    """Whether the CoT holds the gold answer as a plain copy, where, and what is left without what follows."""

    leaks: Estimate
    leaks_other: Estimate  # of another question's answer: chance
    position: float | None  # mean, 0 start of the CoT, 1 its end
    quartiles: tuple[float, ...]  # three or none
    accuracy: Estimate
    accuracy_cut: Estimate
    logprob: Estimate
    logprob_cut: Estimate


@dataclass(frozen=True, slots=True)
class LagDamage:
    """One perturbation of a state at one severity, felt in what is predicted `lag` chunks (or pieces) later."""

    perturbation: str
    severity: float | None
    lag: int
    predicted: str  # answer, next_chunk
    n: int | None
    drop: Estimate  # nats a predicted token
    accuracy: Estimate
    differs: Estimate  # share of the states there that are other ones


@dataclass(frozen=True, slots=True)
class Known:
    """One question put to the state after chunk `t`."""

    t: int
    logprob: float | None
    correct: bool | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A question put to every state; `fact` is the chunk that its answer stands in."""

    text: str
    question: str
    answer: str
    fact: int | None
    known: tuple[Known, ...]


@dataclass(frozen=True, slots=True)
class KnownShare:
    """How well answers are read at one age of their fact, or after one chunk."""

    at: int
    n: int | None
    accuracy: Estimate
    logprob: Estimate


@dataclass(frozen=True, slots=True)
class Chains:
    """States that follow each other: damage, facts, words that survive."""

    chain: str  # notes, notes_then_questions, thinking
    damage: tuple[LagDamage, ...]
    facts: tuple[Fact, ...]
    by_age: tuple[KnownShare, ...]
    by_t: tuple[KnownShare, ...]
    survival: Estimate  # of a state's words, in the next state

    @property
    def thinks(self) -> bool:
        return self.chain == "thinking"


@dataclass(frozen=True, slots=True)
class ThreeWay:
    """What the answer follows when one number of the CoT is changed and the rest worked out anew. Shares."""

    reader: str  # "sees the question", "question hidden"
    n: int | None
    right_before: Estimate
    follows: Estimate  # the changed CoT
    question: Estimate  # stays with the question's answer
    neither: Estimate


@dataclass(frozen=True, slots=True)
class ChangedCot:
    """One CoT, its changed form, and the answer read from that by each reader ("" where none was)."""

    id: str
    question: str
    gold: str
    cot: str
    changed: str
    result: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Intervention:
    """`changed` of `cots` CoTs had a number to change."""

    cots: int | None
    changed: int | None
    rows: tuple[ThreeWay, ...]
    examples: tuple[ChangedCot, ...]


@dataclass(frozen=True, slots=True)
class PlaceCause:
    """Sentences between two places of the CoT: what they cause (tv, kl, accuracy) beside what they bear (occlusion)."""

    start: float
    end: float
    sentences: int | None
    tv: Estimate
    chance: Estimate
    kl: Estimate
    accuracy: Estimate
    occlusion: Estimate


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of one CoT. `tv`: distance of the answers with and without it; without a counterfactual it has none."""

    text: str
    tv: Estimate
    chance: float | None
    p: float | None
    occlusion: float | None
    right_with: float | None
    right_without: float | None


@dataclass(frozen=True, slots=True)
class ResampledCot:
    """One CoT, sentence by sentence."""

    id: str
    question: str
    gold: str
    answer: str
    correct: bool | None
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class Resample:
    """What sentences cause, by K continuations of the writer."""

    k: int | None
    criterion: str
    positions: tuple[PlaceCause, ...]
    rank: Estimate  # rank correlation, within a CoT, of what sentences cause and what they bear
    cots: tuple[ResampledCot, ...]


Found = Perturb | Transfer | Explain | Bypass | Leak | Chains | Intervention | Resample


@dataclass(frozen=True, slots=True)
class Study:
    """One file."""

    path: Path
    kind: str
    checkpoint: str
    step: int
    split: str
    task: str
    model: str
    conditioning: str
    n: int | None  # questions
    cots_per_question: int | None
    notes: tuple[str, ...]
    found: Found

    @property
    def where(self) -> str:
        """`step-000050, test split, n=100`"""
        cots = f" × {self.cots_per_question} CoTs" if (self.cots_per_question or 1) > 1 else ""
        notes = isinstance(self.found, Chains) and not self.found.thinks
        one, hidden = ("text", "past") if notes else ("question", "question")
        n = f"n={self.n:,} {one}s{cots}" if self.n is not None else ""
        split = f"{self.split} split" if self.split else ""
        sight = {"markovian": f"{hidden} hidden", "non_markovian": f"{hidden} visible"}.get(self.conditioning, "")
        return ", ".join(part for part in (self.checkpoint or "checkpoint ?", split, n, sight) if part)
