"""Rules about the update itself: groups that teach nothing, terms out of balance, ratios and gradients that do nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from markovlm.health.rules.case import Case, Finding, percent


def idle_groups(case: Case) -> Iterable[Finding]:
    c = case.course("groups_without_spread")
    if c is None or len(c) < 20:
        return
    level = float(c.values[-max(1, len(c) // 5) :].mean())
    correct = case.course("answer_correct_fraction")
    solved = correct is not None and float(correct.values[-max(1, len(correct) // 5) :].mean()) > 0.75
    if level > 0.5 and not solved:
        yield Finding(
            "idle_groups",
            f"{percent(level)} of groups had no spread of rewards in the last fifth: they teach nothing",
            "high",
            "caution",
            advice=("use larger groups, a higher temperature, or questions the model sometimes gets right",),
        )


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


def known_faults(case: Case) -> Iterable[Finding]:
    if case.run.native or case.run.kind in ("unknown", "evaluation"):
        return
    weight = case.setting("objective.actor_reward_weight")
    if isinstance(weight, (int, float)) and weight > 0:
        yield Finding(
            "dead_actor_reward",
            f"actor_reward_weight is {weight:g}, but in that code the reward's gradient is zero (computed under no_grad): "
            "this run trained with the policy gradient alone",
            "high",
            "note",
        )
    if case.setting("use_ppo") is True and not _ratio_is_one(case):
        checked = case.run.kind in ("g3", "g4")  # the generations of the code that was read; older ones are not at hand
        yield Finding(
            "frozen_anchor",
            "use_ppo takes the ratio against the frozen base, not the policy that sampled, and drops the KL and actor-reward "
            "terms" + ("" if checked else " (read in later code; this log is older)"),
            "high" if checked and case.run.steps else "medium",
            "caution" if case.run.steps else "note",
            advice=(
                "set use_ppo to false, or train with this package's objective.name: ppo, whose ratio is to the policy that sampled",
            ),
        )


_FEWEST = 10


def _trained_rows(case: Case, key: str) -> list[float]:
    """A metric's values in the rows that had a gradient."""
    if not (case.run.has(key) and case.run.has("grad_norm")):
        return []
    rows = case.run.metrics.select(key, "grad_norm").drop_nulls().filter(pl.col("grad_norm") > 0)
    return rows[key].to_list()


def _ratio_is_one(case: Case) -> bool:
    values = _trained_rows(case, "ratio_mean")
    return len(values) >= 3 and all(value == 1.0 for value in values)


def idle_ratio(case: Case) -> Iterable[Finding]:
    """PPO whose ratio never leaves 1: clipping cannot act."""
    name = str(case.setting("objective.name") or "")
    if case.run.config and "ppo" not in name and case.setting("use_ppo") is not True:
        return
    values = _trained_rows(case, "ratio_mean")
    if _ratio_is_one(case):
        yield Finding(
            "idle_ratio",
            f"PPO's ratio is exactly 1 in all {len(values):,} rows that had a gradient: nothing was ever clipped, so PPO did nothing here "
            "and this is the plain policy gradient",
            "high" if len(values) >= _FEWEST else "medium",
            "caution",
            advice=("several passes over each rollout are needed for PPO to differ from the policy gradient",),
        )


def no_gradient(case: Case) -> Iterable[Finding]:
    c = case.course("grad_norm")
    if c is not None and len(c) >= 3 and not c.values.any():
        yield Finding(
            "no_gradient",
            f"the gradient norm is 0 in all {len(c):,} rows: nothing was trained",
            "high",
            "problem",
            advice=("check that the adapter's weights need gradients and that advantages are not all 0",),
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
