"""What settings do: terms out of balance, PPO that does nothing or pushes away, and whether the log ends as it should."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from markovlm.health.advice import BEFORE, OUR_GUARD
from markovlm.health.case import Case, percent
from markovlm.health.moves import rise
from markovlm.health.rule import Finding, Rule
from markovlm.research_logs.keys import GENERATIONS


def term_balance(case: Case) -> Iterable[Finding]:
    policy, actor = case.course("grad_norm_policy"), case.course("grad_norm_actor_reward")
    if policy is None or actor is None or not float(np.median(policy.values)) > 0:
        return
    share = float(np.median(actor.values)) / float(np.median(policy.values))
    if share > 10 or 0 < share < 0.01:
        what = "swamps" if share > 10 else "is swamped by"
        advice = "use objective.cot_logprob: sum, or lower objective.actor_reward_weight to about 0.1" if share > 10 else ""
        yield Finding(
            "term_balance",
            f"the actor-reward gradient {what} the policy gradient (median norms {share:.3g} : 1)",
            "high",
            "caution",
            advice=(advice,) if advice else (),
        )


def _of_research_code(case: Case) -> bool:
    return case.run.kind in GENERATIONS


def dead_actor_reward(case: Case) -> Iterable[Finding]:
    weight = case.setting("objective.actor_reward_weight")
    if _of_research_code(case) and isinstance(weight, (int, float)) and weight > 0:
        yield Finding(
            "dead_actor_reward",
            f"actor_reward_weight is {weight:g}, but in that code the reward's gradient is zero (computed under no_grad): "
            "this run trained with the policy gradient alone",
            "high",
        )


def anchored(case: Case) -> Iterable[Finding]:
    if not _of_research_code(case) or case.setting("use_ppo") is not True or _ratio_is_one(case):
        return
    checked = case.run.kind in ("g3", "g4")  # the generations of the code that was read; older ones are not at hand
    yield Finding(
        "frozen_anchor",
        "use_ppo takes the ratio against the frozen base, not the policy that sampled, and drops the KL and actor-reward "
        "terms" + ("" if checked else " (read in later code; this log is older)"),
        "high" if checked and case.run.steps else "medium",
        "caution" if case.run.steps else "note",
    )


_FEWEST = 10


def _ratios(case: Case) -> list[float]:
    """PPO's ratio in the rows that had a gradient."""
    if not (case.run.has("ratio_mean") and case.run.has("grad_norm")):
        return []
    rows = case.run.metrics.select("ratio_mean", "grad_norm").drop_nulls().filter(pl.col("grad_norm") > 0)
    return rows["ratio_mean"].to_list()


def _ratio_is_one(case: Case) -> bool:
    values = _ratios(case)
    return len(values) >= 3 and all(value == 1.0 for value in values)


def idle_ratio(case: Case) -> Iterable[Finding]:
    """PPO whose ratio never leaves 1: clipping cannot act."""
    name = str(case.setting("objective.name") or "")
    if case.run.config and "ppo" not in name and case.setting("use_ppo") is not True:
        return
    if _ratio_is_one(case):
        n = len(_ratios(case))
        yield Finding(
            "idle_ratio",
            f"PPO's ratio is exactly 1 in all {n:,} rows that had a gradient: nothing was ever clipped, so PPO did nothing here "
            "beyond the plain policy gradient",
            "high" if n >= _FEWEST else "medium",
            "caution",
        )


def stopped_early(case: Case) -> Iterable[Finding]:
    planned, last = case.setting("training.steps"), case.run.last_step
    ended = any(e.get("kind") == "end" for e in case.run.events)
    if isinstance(planned, int) and last is not None and not ended and last + 1 < planned:
        share = (last + 1) / planned
        yield Finding(
            "not_finished",
            f"{last:,} of {planned:,} planned steps are logged ({percent(share)}); the run may still be going",
            "high",
        )


def frozen_anchor_collapse(case: Case) -> Iterable[Finding]:
    if case.collapsed and "ppo_frozen_anchor" in str(case.setting("objective.name")):
        ratio = next((e for e in case.verdict.signals if e.kind == "ratio_explosion" and e.level == "collapsed"), None)
        said = (
            f"the ratio left its range ({ratio.describe()})" if ratio is not None else "the log shows no ratio beyond its range"
        )
        yield Finding(
            "ppo_frozen_anchor", f"objective.name is ppo_frozen_anchor; {said}", "medium" if ratio else "low", "problem"
        )


def swamped(case: Case) -> Iterable[Finding]:
    if case.collapsed and any("swamps" in finding.evidence for finding in term_balance(case)):
        yield Finding("reward_gradient_swamps_policy", next(iter(term_balance(case))).evidence, "medium", "problem")


def ended_in_error(case: Case) -> Iterable[Finding]:
    if (error := case.run.error) is not None:
        yield Finding(
            "ended_in_error",
            f"the log ends with an error (line {error.get('line', '?')}): {error['text']}",
            "high",
            "caution",
            case.run.last_step,
        )


def slower_steps(case: Case) -> Iterable[Finding]:
    c = case.course("step_seconds")
    if c is None or len(c) < 20:
        return
    early, now = float(np.median(c.values[1:9])), float(np.median(c.values[-5:]))
    move = rise(c, factor=2.0)
    if early > 0 and now >= 2.0 * early and move is not None:
        length = case.course("cot_length")
        grown = (
            ""
            if length is None
            else f"; completions went from {np.median(length.values[:8]):.0f} to {np.median(length.values[-5:]):.0f} tokens"
        )
        yield Finding(
            "slower_steps",
            f"a step takes {now:.3g} s, {early:.3g} s at the start, from step {move.step:,} on{grown}",
            "high",
            "note",
            move.step,
        )


RULES = (
    Rule(
        "ppo_frozen_anchor",
        "PPO with its ratio against the frozen base: once the policy is sharper than the base, samples only push it "
        "away (the ratio shows the drift, but it is not proven to cause the collapse: in a study of short runs "
        "(docs/findings.md, What collapsed PPO?) the anchor alone broke nothing with mean log-ratios, and with summed "
        "ones learning stalled)",
        "objective.name, policy ratio",
        "a collapse with that objective",
        "medium if the ratio exploded, else low",
        check=frozen_anchor_collapse,
        explains="settings",
        advice=(
            "use a group advantage without PPO (objective.name: grpo), or objective.name: ppo, whose ratio is to the policy "
            "that sampled",
            BEFORE,
            "rate",
            OUR_GUARD,
            "keep training.max_grad_norm at 1.0 and evaluate every 500 to 1,000 steps",
        ),
    ),
    Rule(
        "reward_gradient_swamps_policy",
        "the actor-reward gradient outweighs the policy gradient",
        "gradient norms by loss term",
        "a collapse with the actor-reward term over 10 times the policy term",
        "medium: measured, but the cause is open",
        check=swamped,
        explains="settings",
        advice=("set objective.cot_logprob: sum, or objective.actor_reward_weight to 0.1 and let it rise", OUR_GUARD),
    ),
    Rule(
        "term_balance",
        "one term of the loss outweighs another",
        "gradient norms by loss term",
        "actor-reward term over 10 times, or under a hundredth of, the policy term",
        "high: measured",
        check=term_balance,
    ),
    Rule(
        "idle_ratio",
        "PPO whose ratio never leaves 1: clipping cannot act",
        "PPO ratio, gradient norm",
        "exactly 1 in every row with a gradient",
        "high from ten rows",
        check=idle_ratio,
        advice=("several passes over each rollout are needed for PPO to differ from the policy gradient",),
        plural="use PPO, but its ratio never left 1",
    ),
    Rule(
        "dead_actor_reward",
        "the actor reward has no gradient in that code",
        "research code's settings",
        "actor_reward_weight above 0",
        "high: read in that code",
        check=dead_actor_reward,
    ),
    Rule(
        "frozen_anchor",
        "use_ppo anchors the ratio at the frozen base",
        "research code's settings",
        "use_ppo with a ratio that leaves 1",
        "high: read in that code; medium for older logs",
        check=anchored,
        advice=("set use_ppo to false, or train with this package's objective.name: ppo, whose ratio is to the policy that sampled",),
    ),
    Rule(
        "only_collapsed_runs_share",
        "a setting is associated with collapse",
        "settings of all runs",
        "a setting that every collapsed run has and no other run",
        "low: association",
        advice=("change that setting alone and repeat the run: a shared setting need not be the cause",),
    ),
    Rule(
        "not_finished",
        "the run is not finished",
        "planned and logged steps",
        "fewer steps than planned and no end event",
        "high: a count",
        check=stopped_early,
    ),
    Rule(
        "ended_in_error",
        "the log ends with an error",
        "a printed log after its last row",
        "a traceback, running out of memory, or a final message of the scheduler or the system",
        "high: it is quoted",
        check=ended_in_error,
        plural="ended with an error",
    ),
    Rule(
        "slower_steps",
        "steps take twice as long as at the start",
        "time of a step",
        "twice the early median, lasting",
        "high: measured",
        check=slower_steps,
        plural="take twice as long per step as at the start",
    ),
)  # fmt: skip
