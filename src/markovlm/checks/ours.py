"""Settings of our own that look right and have failed in practice. `train` warns of them at the start."""

from __future__ import annotations

from collections.abc import Iterator

from markovlm.checks.finding import CheckFinding
from markovlm.config import RunConfig
from markovlm.models.registry import highest_tried_lr
from markovlm.objectives.ppo_frozen_anchor import NOTICE
from markovlm.runs.asking import task_of

_SMALL_GROUP = 8
_PPO_LR_SHARE = 0.5


def doubts(config: RunConfig) -> list[str]:
    """One line per finding, with a reference."""
    return [f"{finding.what} ({finding.source})" for finding in findings(config)]


def findings(config: RunConfig) -> Iterator[CheckFinding]:
    """The findings, in the order in which one would look."""
    objective, training, rollouts = config.objective, config.training, config.rollouts
    tried = highest_tried_lr(config.model, training.lr)
    live = objective.actor_reward_weight.maximum > 0
    if objective.name == "ppo_frozen_anchor":
        yield CheckFinding("frozen_anchor", "warn", NOTICE, "objective.name=ppo", "docs/objectives.md, PPO")
        if objective.cot_logprob == "sum":
            yield CheckFinding(
                "summed_ratio", "warn",
                "objective.cot_logprob=sum with ppo_frozen_anchor: the ratio of a whole CoT to the base leaves the clip range at once and learning "
                "stalls; the research code takes the mean", "objective.cot_logprob=mean", "docs/findings.md, What collapsed PPO?",
            )  # fmt: skip
    if objective.name == "ppo" and live and training.lr.maximum > _PPO_LR_SHARE * tried:
        yield CheckFinding(
            "rate_too_high_for_passes", "warn",
            f"objective.name=ppo with a live actor reward at training.lr {training.lr.maximum:g}: several passes multiply the step; "
            f"half the usual rate ({_PPO_LR_SHARE * tried:g}) is safer", f"training.lr={_PPO_LR_SHARE * tried:g}", "docs/objectives.md, PPO",
        )  # fmt: skip
    if objective.answer_end == "open" and live and task_of(config).prompt_kind != "continuation":
        yield CheckFinding(
            "open_end", "warn",
            "objective.answer_end=open with a live gradient through the reward: in 13 of 13 runs replies began to run on after the gold answer, "
            "which the reward does not see; set objective.answer_end=scored", "objective.answer_end=scored", "docs/likelihood-gap.md",
        )  # fmt: skip
    if objective.conditioning == "non_markovian" and objective.reader == "actor" and objective.reward == "logprob" and live:
        yield CheckFinding(
            "reader_sees_question", "warn",
            "objective.conditioning=non_markovian with a live log-likelihood reward: the reader learns to answer from the question, which cost "
            "accuracy and load where it knew answers at a glance (with the end of the reply open; with it scored, the effect is unclear); "
            "objective.reader=frozen with objective.actor_reward_weight=0 did not",
            "objective.reader=frozen, objective.actor_reward_weight=0", "docs/objectives.md, rewards side by side",
        )  # fmt: skip
    if rollouts.foreign and rollouts.importance == "off":
        yield CheckFinding(
            "sampler_uncorrected", "warn",
            f"rollouts.backend={rollouts.backend} with rollouts.importance=off: sampler and trainer differ in their probabilities, so training is "
            "off-policy and nothing corrects it", "rollouts.importance=auto", "docs/samplers.md",
        )  # fmt: skip
    if not training.eval_every:
        yield CheckFinding(
            "never_evaluated", "warn",
            "training.eval_every=0: without evaluation during training a peak can't be distinguished from a decline",
            f"training.eval_every={max(training.steps // 10, 1)}", "docs/objectives.md, evaluation",
        )  # fmt: skip
    if objective.grouped and rollouts.group_size < _SMALL_GROUP:
        yield CheckFinding(
            "few_cots_a_group", "warn",
            f"rollouts.group_size={rollouts.group_size}: the mean and spread of a group under {_SMALL_GROUP} are mostly noise",
            f"rollouts.group_size={_SMALL_GROUP} or more", "docs/objectives.md, group size",
        )  # fmt: skip
    if training.lr.maximum > tried:
        yield CheckFinding(
            "rate_too_high", "warn", f"training.lr {training.lr.maximum:g} is above {tried:g}, the highest that held up",
            f"training.lr={tried:g}", "docs/objectives.md, learning rate",
        )  # fmt: skip
