"""Groups that teach nothing: rewards that are all equal, all wrong, all right; no gradient."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from markovlm.health.case import Case, percent
from markovlm.health.rule import Finding, Rule
from markovlm.health.rules.length import cut_fraction
from markovlm.health.series import Course
from markovlm.health.thresholds import Threshold
from markovlm.intervals import percent_text
from markovlm.logs.schema import COMPONENT_STD

_NEARLY_ALL = 0.9
_FEW = 8  # rows; fewer are hopeless by chance


def without_spread(case: Case) -> Course | None:
    """Share of groups whose rewards are all equal; where only a spread is logged, 1 in rows where it is 0."""
    c = case.course("groups_without_spread")
    if c is not None:
        return c
    spread = case.course("reward_std")
    return None if spread is None else Course("groups_without_spread", spread.steps, (spread.values == 0.0).astype(float))


def _range(case: Case) -> tuple[float, float, float] | None:
    """(present level, lowest, highest) of the reward; the range of a share is 0 to 1."""
    c = case.course("reward_mean")
    if c is None:
        return None
    low, high = float(c.values.min()), float(c.values.max())
    return float(np.median(c.values[-5:])), low, max(high, 1.0) if c.is_share else high


def rewards_equal(case: Case) -> Iterable[Finding]:
    """Every prompt's completions get one reward, from the first row on, although rewards differ between prompts."""
    c = without_spread(case)
    if c is None or len(c) < 4 or (c.values[:10] < _NEARLY_ALL).any() or np.median(c.values) < _NEARLY_ALL:
        return
    cut = cut_fraction(case)
    reward = case.course("reward_mean")
    if reward is None or (cut is not None and np.median(cut.values) >= _NEARLY_ALL):
        return
    spreads = [s for key in case.run.metrics.columns if key.startswith(COMPONENT_STD) and (s := case.course(key)) is not None]
    between = max((float(np.median(s.values)) for s in spreads), default=0.0)
    vary = float(np.std(reward.values))
    at_an_end = reward.is_share and not 0.03 <= float(np.median(reward.values)) <= 0.97
    if at_an_end and between < 0.05:  # all wrong or all right: that is another matter
        return
    if between == 0.0 and vary == 0.0:
        said = f"the reward is {reward.values[-1]:.3g} for every completion in every row"
    else:
        said = f"rewards differ between prompts (standard deviation {between if between else vary:.3g}) but not between the completions of one prompt"
    yield Finding(
        "rewards_equal",
        f"{percent(float(np.median(c.values)))} of groups have the same reward for all completions, from the first row on; {said}: "
        "no advantage, no gradient",
        "high",
        "problem",
        int(c.steps[0]),
    )


def hopeless(case: Case) -> Iterable[Finding]:
    c, found = without_spread(case), _range(case)
    if c is None or found is None or any(rewards_equal(case)):
        return
    share, (now, low, high) = float(np.median(c.values[-5:])), found
    reward = case.course("reward_mean")
    if reward is None or len(c) < _FEW or share < _NEARLY_ALL or now > low + 0.1 * (high - low):
        return
    above = np.flatnonzero(reward.values > low + 0.2 * (high - low))  # the last row in which there was something to learn from
    since = int(reward.steps[min(int(above[-1]) + 1, len(reward) - 1)]) if len(above) else int(reward.steps[0])
    yield Finding(
        "groups_hopeless",
        f"{percent_text(share)} of groups have equal rewards, and the reward is {now:.3g}, its lowest, from step {since:,} on",
        "medium",
        "problem",
        since,
    )


def solved(case: Case) -> Iterable[Finding]:
    c, found = without_spread(case), _range(case)
    if c is None or found is None or any(rewards_equal(case)):
        return
    share, (now, low, high) = float(np.median(c.values[-5:])), found
    if share >= _NEARLY_ALL and now > low + 0.1 * (high - low) and now >= high - 0.15 * (high - low):
        yield Finding(
            "groups_solved",
            f"{percent_text(share)} of groups have equal rewards, and the reward is {now:.3g}, about its highest",
            "medium",
            "note",
        )


def idle_groups(case: Case) -> Iterable[Finding]:
    c = case.course("groups_without_spread")
    if c is None or len(c) < 20 or any(rewards_equal(case)):
        return
    level = float(c.values[-max(1, len(c) // 5) :].mean())
    correct = case.course("answer_correct_fraction")
    right = correct is not None and float(correct.values[-max(1, len(correct) // 5) :].mean()) > 0.75
    if level > 0.5 and not right:
        yield Finding(
            "idle_groups",
            f"{percent(level)} of groups had no spread of rewards in the last fifth of the rows: they teach nothing",
            "high",
            "caution",
        )


def no_gradient(case: Case) -> Iterable[Finding]:
    c = case.course("grad_norm")
    if c is None or len(c) < 3:
        return
    if not c.values.any():
        said = f"the gradient norm is 0 in all {len(c):,} rows: nothing was trained"
        step = int(c.steps[0])
    elif len(c) >= 20 and not c.values[-20:].any() and not case.outcome_lost:
        said = f"the gradient norm is exactly 0 in the last {len(c) - int(np.flatnonzero(c.values)[-1]) - 1:,} rows"
        step = int(c.steps[int(np.flatnonzero(c.values)[-1]) + 1])
    else:
        return
    equal = without_spread(case)
    silent = equal is not None and np.median(equal.values[-20:]) >= 0.99
    yield Finding(
        "no_gradient",
        said + (", as it must be where all rewards of a group are equal" if silent else ""),
        "high",
        "caution" if silent else "problem",
        step,
    )


def constant_reward(case: Case) -> Iterable[Finding]:
    reward, spread = case.course("reward_mean"), case.course("reward_std")
    if (
        reward is None
        or spread is None
        or len(reward) < 10
        or any(rewards_equal(case))
        or any(hopeless(case))
        or any(solved(case))
    ):
        return
    last = reward.values[-20:]
    if float(np.ptp(last)) == 0.0 and not spread.values[-20:].any():
        yield Finding(
            "nothing_moves",
            f"the reward is {last[-1]:.3g} in each of the last {len(last)} rows, without spread",
            "medium",
            "caution",
            int(reward.steps[-len(last)]),
        )


def tiny_deviation(case: Case) -> Iterable[Finding]:
    floor = case.setting("objective.std_floor")
    small = isinstance(floor, (int, float)) and floor < 0.05
    if case.collapsed and small and any(e.kind == "gradient_blow_up" and e.level == "collapsed" for e in case.verdict.signals):
        yield Finding("near_identical_groups", f"objective.std_floor is {floor:g} and the gradient blew up", "high", "problem")


RULES = (
    Rule(
        "rewards_equal",
        "all completions of a prompt get the same reward",
        "groups without spread, spread of rewards, lengths",
        "nine of ten groups in each of the first ten rows, with rewards neither all wrong nor all right",
        "high: a count",
        check=rewards_equal,
        explains="mechanism",
        advice=(
            "check the reward function: does it see the completion, or only the prompt? Call it by hand on a right and "
            "a wrong answer",
            "check the grouping: are the completions of one prompt adjacent, and is their number what the trainer assumes?",
            "use a temperature above 0: equal completions get equal rewards",
        ),
        doubt="rewards equal",
        plural="give all completions of a prompt the same reward",
        warns="high",
        seen=("https://github.com/huggingface/trl/issues/3452", "https://github.com/modelscope/ms-swift/issues/4570"),
    ),
    Rule(
        "groups_hopeless",
        "all answers of a group are equally wrong: no advantage, no gradient",
        "groups without spread, reward",
        "nine of ten groups, with the reward at its lowest",
        "medium: a count",
        check=hopeless,
        explains="mechanism",
        advice=("check the reward function on answers that are certainly right", "limit", "filter", "groups"),
        doubt="all wrong",
        plural="have groups that are all wrong",
        warns="medium",
        seen=("https://github.com/huggingface/trl/issues/3452", "https://github.com/modelscope/ms-swift/issues/4570"),
    ),
    Rule(
        "groups_solved",
        "all answers of a group are equally right: nothing is left to learn here",
        "groups without spread, reward",
        "nine of ten groups, with the reward at its highest",
        "medium: a count",
        check=solved,
        seen=("https://github.com/modelscope/ms-swift/issues/4570",),
    ),
    Rule(
        "groups_equal",
        "the completions of nearly every prompt get the same reward: nothing to learn from",
        live=(
            Threshold(
                "groups_without_spread", "value", "above", 0.9, None, 9, 10,
                "Nine of ten groups have equal rewards: no advantage, no learning.",
                solved_excuses=True,
            ),
        ),
    ),
    Rule(
        "identical_cots",
        "all CoTs of a group are the same",
        live=(
            Threshold(
                "identical_cot_fraction", "value", "above", 0.8, 0.95, 4, 5,
                "Samples of a group are copies of one text, so the group has no spread and teaches nothing; normal only "
                "when answers are already right.",
                gain_excuses=True, solved_excuses=True,
            ),
        ),
    ),
    Rule(
        "idle_groups",
        "most groups have no spread of rewards",
        "groups_without_spread",
        "over half in the last fifth, task not solved",
        "high: a count",
        check=idle_groups,
        advice=("use larger groups, a higher temperature, or questions the model sometimes gets right",),
    ),
    Rule(
        "near_identical_groups",
        "groups with nearly equal rewards were divided by a tiny standard deviation",
        "objective.std_floor, gradient norm",
        "a floor under 0.05 and a gradient that blew up",
        "high: the setting causes it",
        check=tiny_deviation,
        explains="settings",
        advice=("raise objective.std_floor to 0.1", "use larger groups or a higher temperature"),
    ),
    Rule(
        "no_gradient",
        "no gradient reached the weights",
        "gradient norm",
        "0 in every row, or in the last 20",
        "high: a count",
        check=no_gradient,
        explains="mechanism",
        cause="nothing_trained",
        advice=("check that the adapter's weights require gradients, that the learning rate is not 0 and that "
                "advantages are not all 0",),
        doubt="nothing trained",
        plural="had no gradient at all",
        warns="high",
        seen=("https://github.com/modelscope/ms-swift/issues/4570", "https://github.com/unslothai/unsloth/issues/2291"),
    ),
    Rule(
        "nothing_moves",
        "no gradient: rewards without spread, a learning rate of 0, or a loss that depends on no weight",
        "reward, its spread",
        "the same reward in each of the last 20 rows, without spread",
        "medium: a count",
        check=constant_reward,
        explains="summary",
        advice=("check that rewards differ within a group", "groups"),
        doubt="nothing moves",
        warns="medium",
        seen=("https://github.com/modelscope/ms-swift/issues/4570", "https://github.com/unslothai/unsloth/issues/2291"),
    ),
)  # fmt: skip
