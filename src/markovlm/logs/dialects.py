"""From a log's keys to ours: which framework wrote them, what each means, and what kind of training they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markovlm.logs.families import family
from markovlm.logs.frameworks import FRAMEWORKS, Framework
from markovlm.logs.records import Training
from markovlm.logs.schema import COMPONENT, EVAL_ACCURACY, EVAL_REWARD, SOURCE

MAX_COMPONENTS = 40  # reward functions of one run; a hostile log may name millions
NESTED = "//"  # between an outer key and an inner one that is no metric's name by itself
PREFIXES = ("train/", "global/", "training/")  # of trackers; the Hugging Face Trainer writes `train/reward` for `reward`
_PREFERENCE = ("rewards/chosen", "rewards/margins", "logps/chosen", "rewards/accuracies")
_OUTCOMES = ("reward_mean", "normalized_reward_mean", "answer_logprob", "answer_correct_fraction")
_OF_SAMPLING = (
    "reward_std", "groups_without_spread", "kl", "ratio_clipped_fraction", "behavior_kl", "cot_length_saturated_fraction", "sampler_gap",
    "sampler_kl", "sampler_prob_gap", "loss_policy",
)  # fmt: skip
_FAMILY_RANK = 50  # behind every name that the framework has itself
_PARTS = {EVAL_ACCURACY: "eval_accuracy", EVAL_REWARD: "eval_reward"}


def plain_key(key: str) -> str:
    """A tracker's key without the prefix that the tracker, not the framework, has given it."""
    if key.startswith("eval/"):
        return "eval_" + key[5:]
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key


class Translator:
    """Rows of one log into our keys. Names by family are taken where the framework has none of its own for the reward."""

    def __init__(self, framework: Framework, families: bool = False) -> None:
        self.framework = framework
        self.families = families
        self._ours: dict[str, tuple[str, int] | None] = {}  # their key -> (ours, rank), None where it says nothing to us
        self._parts = 0

    def place(self, key: str) -> tuple[str, int] | None:
        """(our key, rank among the keys that mean the same; the lowest counts)."""
        if key in self._ours:
            return self._ours[key]
        found = self._find(key)
        if len(self._ours) < 10_000:
            self._ours[key] = found
        return found

    def _find(self, key: str) -> tuple[str, int] | None:
        if NESTED in key:
            return None
        names = dict.fromkeys((key, plain_key(key)))
        for name in names:
            if name in self.framework.places:
                return self.framework.places[name]
            part = self.framework.component(name)
            if part is not None:
                return self._part(part, 0)
        found = family(key) if self.families else None
        return None if found is None else self._part(found, _FAMILY_RANK)

    def _part(self, ours: str, rank: int) -> tuple[str, int] | None:
        if "/" not in ours:
            return ours, rank
        self._parts += 1
        return (ours, rank) if self._parts <= MAX_COMPONENTS else None

    def row(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """One row under our keys; what has no place is left out."""
        out: dict[str, float] = {}
        ranks: dict[str, int] = {}
        for key, value in numbers.items():
            place = self.place(key)
            if place is not None and place[1] <= ranks.get(place[0], 99):
                out[place[0]], ranks[place[0]] = value, place[1]
        _add_idle_groups(out, counts="groups_mixed" in self.framework.keys)
        for prefix, whole in _PARTS.items():
            parts = [value for key, value in out.items() if key.startswith(prefix)]
            if parts and whole not in out:
                out[whole] = sum(parts) / len(parts)
        return out


def _add_idle_groups(row: dict[str, float], counts: bool) -> None:
    """Groups all right and all wrong are those without spread. What may be `counts` becomes shares with those in between (`groups_mixed`)."""
    right, wrong = row.pop("groups_all_right", None), row.pop("groups_all_wrong", None)
    mixed = row.pop("groups_mixed", None)
    if right is None or wrong is None or (counts and mixed is None):
        return
    groups = right + wrong + mixed if counts and mixed is not None else 1.0
    if right >= 0 and wrong >= 0 and 0 < groups < float("inf") and right + wrong <= groups * (1 + 1e-6):
        row |= {
            key: value / groups
            for key, value in (("groups_all_right", right), ("groups_all_wrong", wrong), ("groups_without_spread", right + wrong))
        }


def dialect_of(keys: Iterable[str]) -> Framework:
    """The framework that most of a log's keys belong to; TRL if nothing decides (it has the Hugging Face Trainer's names)."""
    all_of_them = set(keys)
    names = {plain_key(key) for key in all_of_them} | all_of_them
    return max(FRAMEWORKS, key=lambda framework: framework.score(names))


def translator_of(keys: Iterable[str], framework: Framework | None = None) -> Translator:
    """The translator for a log with these keys; with names by family where no framework is recognised, or finds no reward among them."""
    names = list(keys)
    plain = Translator(framework or dialect_of(names))
    if framework is not None or is_preference(names):
        return plain
    found = {place[0] for key in names if (place := plain.place(key)) is not None}
    recognised = plain.framework.score({plain_key(key) for key in names} | set(names))
    return Translator(plain.framework, families=not recognised or not found & set(_OUTCOMES))


def is_preference(keys: Iterable[str]) -> bool:
    """Whether these are the keys of training on preference pairs."""
    return any(plain_key(key) in _PREFERENCE for key in keys)


def training_of(keys: Iterable[str], columns: Iterable[str]) -> Training:
    """What kind of training the keys show. An accuracy alone is that of preferences, or of tokens."""
    if is_preference(keys):
        return "preference"
    have = set(columns)
    if have & set(_OUTCOMES) or any(key.startswith((COMPONENT, SOURCE)) for key in have) or len(have & set(_OF_SAMPLING)) >= 2:
        return "reinforcement"
    if "accuracy" in have:
        return "reinforcement" if have & set(_OF_SAMPLING) or "cot_length" in have else "preference"
    if have & {"reward_std", "groups_without_spread"}:
        return "reinforcement"
    return "supervised" if have & {"loss", "eval_loss", "token_accuracy"} else "unknown"
