"""The causes a diagnosis can name: when each is thought of, how sure, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markovlm.health.rules import Case, Confidence, Finding
from markovlm.models.registry import highest_tried_lr

NEW_RUN = "lower training.lr (5e-5, or half of what it was) and restart from a checkpoint before the onset"
WATCH = "train with health.policy: stop, so that the guard ends a run like this one"


@dataclass(frozen=True, slots=True)
class Cause:
    """One named cause: when it is thought of, how sure, what it means, what to change."""

    name: str
    sentence: str
    advice: tuple[str, ...]
    applies: Callable[[Case, Mapping[str, Finding]], Confidence | None]


def _kinds(case: Case) -> set[str]:
    return {e.kind for e in case.verdict.signals if e.level == "collapsed"}


def _if_collapsed(*kinds: str, confidence: Confidence = "medium") -> Callable[[Case, Mapping[str, Finding]], Confidence | None]:
    """Where the run collapsed and shows one of these kinds."""
    return lambda case, _: confidence if case.collapsed and _kinds(case) & set(kinds) else None


def _if_warned(*kinds: str) -> Callable[[Case, Mapping[str, Finding]], Confidence | None]:
    """Where the run shows one of these kinds, collapsed or not."""
    return lambda case, _: "medium" if {e.kind for e in case.verdict.signals} & set(kinds) else None


def _frozen_anchor(case: Case, _: Mapping[str, Finding]) -> Confidence | None:
    anchored = "ppo_frozen_anchor" in str(case.setting("objective.name"))
    if not (case.collapsed and anchored):
        return None
    return "medium" if "ratio_explosion" in _kinds(case) else "low"


def _swamped(case: Case, found: Mapping[str, Finding]) -> Confidence | None:
    balance = found.get("term_balance")
    return "medium" if case.collapsed and balance is not None and "swamps" in balance.evidence else None


def _identical_groups(case: Case, _: Mapping[str, Finding]) -> Confidence | None:
    floor = case.setting("objective.std_floor")
    small = isinstance(floor, (int, float)) and floor < 0.05
    return "high" if case.collapsed and small and "gradient_blow_up" in _kinds(case) else None


def _high_rate(case: Case, _: Mapping[str, Finding]) -> Confidence | None:
    if not case.collapsed or not _kinds(case) & _DRIFTING:
        return None
    rate = case.setting("training.lr")
    limit = highest_tried_lr(str(case.setting("model")))
    return "medium" if isinstance(rate, (int, float)) and rate > limit else "low"


_DRIFTING = {
    "ratio_explosion",
    "gradient_blow_up",
    "drift",
    "logprob_crash",
    "reward_crash",
    "accuracy_crash",
    "repeated_character",
    "repetition",
}


def _if_found(rule: str) -> Callable[[Case, Mapping[str, Finding]], Confidence | None]:
    """Where a rule of hindsight fired and the run did not collapse."""
    return lambda case, found: found[rule].confidence if not case.collapsed and rule in found else None


CAUSES: tuple[Cause, ...] = (
    Cause(
        "numbers_overflowed",
        "loss, reward or gradient stopped being finite",
        ("train in bfloat16 or float32", "check the samples of the onset step", NEW_RUN),
        _if_collapsed("non_finite", confidence="high"),
    ),
    Cause(
        "ppo_frozen_anchor",
        "PPO with its ratio against the frozen base: once the policy is sharper than the base, samples only push it away "
        "(the ratio "
        "shows the drift; that it caused the collapse is not proven: in a study of short runs (docs/findings.md, What collapsed PPO?) the "
        "anchor alone broke nothing with mean log-ratios, and with summed ones learning stalled)",
        (
            "use a group advantage without PPO (objective.name: grpo), or objective.name: ppo, whose ratio is to the policy "
            "that sampled",
            NEW_RUN,
            WATCH,
            "keep training.max_grad_norm at 1.0 and evaluate every 500 to 1,000 steps",
        ),
        _frozen_anchor,
    ),
    Cause(
        "near_identical_groups",
        "groups with nearly equal rewards were divided by a tiny standard deviation",
        ("raise objective.std_floor to 0.1", "use larger groups or a higher temperature"),
        _identical_groups,
    ),
    Cause(
        "reward_gradient_swamps_policy",
        "the actor-reward gradient outweighs the policy gradient",
        ("set objective.cot_logprob: sum, or objective.actor_reward_weight to 0.1 and let it rise", WATCH),
        _swamped,
    ),
    Cause(
        "entropy_lost",
        "the policy became certain while its answers were wrong, so nothing new is sampled",
        (
            "raise rollouts.temperature at the start",
            "raise objective.entropy_weight or objective.kl_weight",
            "use larger groups",
            WATCH,
        ),
        _if_collapsed("entropy_death", "identical_cots"),
    ),
    Cause(
        "learning_rate_too_high",
        "the policy drifted away in few steps, as it does when steps are too long",
        (NEW_RUN, "raise objective.kl_weight", WATCH),
        _high_rate,
    ),
    Cause(
        "degenerate_text",
        "the CoT lost its content",
        ("raise objective.kl_weight", "lower objective.actor_reward_weight at the start", NEW_RUN, WATCH),
        _if_collapsed("repeated_character", "repetition", "empty_cot"),
    ),
    Cause(
        "notes_keep_nothing",
        "the notes of the chains are no memory: they freeze, copy their chunk, overflow, or forget",
        (
            "ask about facts further back (a reward of the next chunk alone may not need a memory), or raise chain.gamma",
            "overflowing notes: raise chain.state_tokens",
            "raise rollouts.temperature or objective.entropy_weight at the start, so that other notes are tried",
        ),
        _if_warned("frozen_notes", "copied_notes", "overflowing_notes", "forgotten_notes"),
    ),
    Cause(
        "unknown_collapse",
        "the signals show a collapse but not why",
        (NEW_RUN, WATCH, "read the samples around the onset"),
        lambda case, _: "low" if case.collapsed else None,
    ),
    Cause(
        "copies_question",
        "the CoT restates its question instead of reasoning: the question is carried past its redaction",
        (),
        _if_found("copies_question"),
    ),
    Cause("ignores_question", "the CoT would fit any question, so it holds no reasoning", (), _if_found("ignores_question")),
    Cause("nothing_trained", "no gradient reached the weights", (), _if_found("no_gradient")),
    Cause("answer_gone", "the reward rises while answers vanish from the CoT", (), _if_found("answer_gone")),
    Cause("below_chance", "right less often than by guessing", (), _if_found("below_chance")),
    Cause("below_base", "right less often than before training", (), _if_found("below_base")),
    Cause("at_chance", "no better than guessing", (), _if_found("at_chance")),
    Cause(
        "reward_without_accuracy",
        "the reward pays for something else than right answers",
        (),
        _if_found("reward_without_accuracy"),
    ),
    Cause(
        "likelihood_accuracy_gap",
        "likelihood and accuracy part: nothing shows that the reward asks the reply to end where the answer ends, so the answers run on, or are "
        "lost between model and extractor",
        (),
        _if_found("likelihood_accuracy_gap"),
    ),
    Cause(
        "unexplained_accuracy",
        "unexplained accuracy: the run's own log-probs promise much more than evaluation found, so suspect "
        "evaluation, loading or extraction before training",
        (),
        _if_found("unexplained_accuracy"),
    ),
    Cause(
        "gap_to_reference",
        "unexplained accuracy: far under the published one, and nothing in the log explains it",
        (),
        _if_found("gap_to_reference"),
    ),
    Cause("trained_past_its_best", "the run got better and then worse", (), _if_found("decay_after_peak")),
    Cause("copies_answer", "the CoT states the answer without reasoning", (), _if_found("copies_answer")),
    Cause("no_learning", "nothing was learned", (), _if_found("no_learning")),
    Cause("cot_too_short", "the CoT budget cuts reasoning off", (), _if_found("cot_length_saturation")),
)
# cause -> the doubt it casts on a run whose training looks healthy
DOUBTS: Mapping[str, str] = {
    "likelihood_accuracy_gap": "answers run on",
    "unexplained_accuracy": "accuracy unexplained",
    "gap_to_reference": "accuracy unexplained",
    "reward_without_accuracy": "reward misleads",
    "copies_answer": "no reasoning",
    "no_learning": "nothing learned",
    "cot_too_short": "CoT cut off",
    "copies_question": "question copied",
    "ignores_question": "question ignored",
    "nothing_trained": "nothing trained",
    "answer_gone": "answer gone",
    "below_chance": "below chance",
    "at_chance": "at chance",
    "below_base": "below its base",
}
