"""The metric schema of a run (docs/metrics.md is written from this table)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of `metrics.jsonl`."""

    key: str
    label: str
    unit: str
    meaning: str


METRICS: tuple[Metric, ...] = (
    Metric("step", "step", "", "optimisation step, from 1; in the research code's logs the batch number, from 0"),
    Metric("loss", "loss", "", "total loss"),
    Metric("loss_policy", "policy loss", "", "policy-gradient term"),
    Metric("loss_actor_reward", "actor-reward loss", "", "actor-reward term, whose gradient flows through the reward"),
    Metric("loss_kl", "KL loss", "", "KL penalty, weighted"),
    Metric("loss_entropy", "entropy loss", "", "entropy bonus, weighted"),
    Metric("reward_mean", "reward", "nats or 0-1", "mean reward r of the step's samples"),
    Metric("reward_std", "reward std", "", "standard deviation of r"),
    Metric("reward_min", "lowest reward", "", "lowest r"),
    Metric("reward_max", "highest reward", "", "highest r"),
    Metric("normalized_reward_mean", "normalised reward", "nats", "mean of R = r - b, b from the frozen model's own CoT"),
    Metric("groups_without_spread", "groups without spread", "fraction", "groups whose rewards are all equal"),
    Metric("groups_all_right", "groups all right", "fraction", "groups without spread whose answers are all right"),
    Metric("groups_all_wrong", "groups all wrong", "fraction", "groups without spread whose answers are all wrong"),
    Metric("advantage_abs_mean", "|advantage|", "", "mean absolute advantage"),
    Metric("answer_logprob", "answer log-prob, actor", "nats/token", "mean ln pi_theta(a|z) per answer token"),
    Metric(
        "baseline_answer_logprob",
        "answer log-prob, frozen",
        "nats/token",
        "ln pi'(a|z') of the frozen model with its own CoT",
    ),
    Metric(
        "answer_correct_fraction",
        "answers right (teacher-forced)",
        "fraction",
        "samples whose teacher-forced argmax is the answer",
    ),
    Metric(
        "answer_exact_fraction",
        "answers right and ended (teacher-forced)",
        "fraction",
        "samples whose teacher-forced argmax is the answer and then the end of the reply",
    ),
    Metric(
        "answer_run_on_fraction",
        "answers that run on",
        "fraction",
        "samples whose teacher-forced argmax is the answer and then something other than an end: likelihood without accuracy",
    ),
    Metric("reader_calibration", "reader calibration", "", "how well the log-prob predicts a right answer"),
    Metric("kl", "KL to the frozen model", "nats/token", "mean per-token KL(u_theta || u')"),
    Metric("kl_max", "highest KL", "nats/token", "highest per-token KL"),
    Metric("entropy", "entropy", "nats/token", "mean entropy of the sampling distribution"),
    Metric("ratio_min", "lowest ratio", "", "lowest policy ratio"),
    Metric("ratio_mean", "policy ratio", "", "mean policy ratio (research code: of one sample, against the frozen base)"),
    Metric("ratio_max", "highest ratio", "", "highest policy ratio"),
    Metric("ratio_clipped_fraction", "clipped ratios", "fraction", "ratios outside the clip range"),
    Metric("no_gradient_fraction", "samples without gradient", "fraction", "samples that contribute no gradient"),
    Metric("behavior_kl", "KL to the behaviour policy", "nats/token", "drift within the passes over one rollout"),
    Metric("cot_length", "CoT length", "tokens", "mean length of the sampled CoTs"),
    Metric("cot_length_saturated_fraction", "CoTs at the length limit", "fraction", "CoTs that used the whole budget"),
    Metric(
        "distinct_bigram_fraction",
        "distinct bigrams",
        "fraction",
        "distinct pairs of adjacent pieces in a CoT; low means repetition",
    ),
    Metric("longest_char_run", "longest run of a character", "characters", "longest run of one character in any CoT"),
    Metric("compression_ratio", "compressibility", "fraction", "compressed over raw bytes; low means repetition"),
    Metric("identical_cot_fraction", "identical CoTs", "fraction", "0: all CoTs of a group differ, 1: all are the same"),
    Metric("chain_return", "return of a chain", "nats", "chains: sum over t of gamma^(t-1) r_t"),
    Metric("chain_states", "states of a chain", "", "chains: states written, mean"),
    Metric("notes_frozen", "frozen notes", "fraction", "chains: states equal to the one before, though another chunk was read"),
    Metric("notes_copied", "copied notes", "fraction", "chains: states that contain only what their chunk says"),
    Metric("notes_overflow", "overflowing notes", "fraction", "chains: states that the budget cut off"),
    Metric("notes_kept", "words kept", "fraction", "chains: words of a state that are also in the next one"),
    Metric("grad_norm", "gradient norm", "", "before clipping"),
    Metric("grad_norm_policy", "gradient norm, policy term", "", "of the policy-gradient term alone"),
    Metric("grad_norm_actor_reward", "gradient norm, actor-reward term", "", "of the actor-reward term alone"),
    Metric("grad_norm_kl", "gradient norm, KL term", "", "of the KL term alone"),
    Metric("lr", "learning rate", "", "learning rate of the step"),
    Metric("temperature", "temperature", "", "sampling temperature"),
    Metric("actor_reward_weight", "actor-reward weight", "", "w of the step"),
    Metric("kl_weight", "KL weight", "", "beta of the step"),
    Metric("questions", "questions", "", "questions in the step"),
    Metric("samples", "samples", "", "CoTs in the step"),
    Metric("cot_tokens", "CoT tokens", "tokens", "CoT tokens sampled in the step"),
    Metric("sampler_gap", "sampler gap", "nats/token", "how far the sampler's log-probs are from the training pass's"),
    Metric("step_seconds", "time of a step", "seconds", "how long the step took"),
    Metric("memory_splits", "memory splits", "", "micro-batches split because memory ran out"),
    Metric("accuracy", "right answers", "fraction", "share of the step's samples that the framework counts as right"),
    Metric("cot_length_min", "shortest CoT", "tokens", "length of the step's shortest completion"),
    Metric("cot_length_max", "longest CoT", "tokens", "length of the step's longest completion"),
    Metric(
        "cot_length_terminated", "length of finished CoTs", "tokens", "mean length of the completions that ended by themselves"
    ),
    Metric("ratio_clipped_low_fraction", "ratios clipped below", "fraction", "tokens whose ratio is clipped from below"),
    Metric("ratio_clipped_high_fraction", "ratios clipped above", "fraction", "tokens whose ratio is clipped from above"),
    Metric("sampler_gap_max", "largest sampler gap", "nats", "largest difference of a token's log-prob, sampler and trainer"),
    Metric(
        "sampler_prob_gap", "sampler gap of probabilities", "", "mean difference of a token's probability, sampler and trainer"
    ),
    Metric("sampler_kl", "KL of the sampler", "nats/token", "estimated KL between the sampler's and the trainer's policy"),
    Metric("sampler_ratio_min", "lowest sampler ratio", "", "lowest importance ratio, trainer over sampler"),
    Metric("sampler_ratio_mean", "sampler ratio", "", "mean importance ratio, trainer over sampler"),
    Metric("sampler_ratio_max", "highest sampler ratio", "", "highest importance ratio, trainer over sampler"),
    Metric(
        "importance_truncated", "ratios truncated", "fraction", "importance ratios of sampler and trainer that are cut at the cap"
    ),
    Metric("loss_value", "value loss", "", "loss of the value model"),
    Metric("eval_loss", "evaluation loss", "", "loss on held-out rows, during training"),
    Metric("eval_reward", "evaluation reward", "", "mean reward on held-out questions, during training"),
    Metric("eval_accuracy", "evaluation accuracy", "fraction", "right answers on held-out questions, during training"),
    Metric("token_accuracy", "token accuracy", "fraction", "supervised runs: tokens whose argmax is the target"),
    Metric("cot_contains_answer", "CoT contains the answer", "fraction", "samples whose CoT contains the gold answer"),
    Metric(
        "copies_question_fraction",
        "CoT restates its question",
        "fraction",
        "samples whose CoT repeats its question, lacks the answer and adds little",
    ),
    Metric(
        "question_specificity",
        "CoT specific to its question",
        "",
        "share of the question's numbers and longer words in its CoT, minus the share of another question's; 0: it would fit any question",
    ),
    Metric("cot_logprob", "CoT log-prob", "nats/token", "research code only: mean ln u_theta(z|q) per CoT token"),
)
METRIC: Mapping[str, Metric] = {metric.key: metric for metric in METRICS}

COMPONENT = "reward/"  # `reward/NAME`: mean of one reward function; the frame has as many as the run logs
COMPONENT_STD = "reward_std/"  # its standard deviation
SOURCE = "source/"  # `source/NAME`: mean reward on one data source
EVAL_ACCURACY = "eval_accuracy/"  # `eval_accuracy/NAME`: right answers on one held-out set
EVAL_REWARD = "eval_reward/"  # `eval_reward/NAME`: mean reward on one held-out set, or of one reward function there
HELD_OUT = "eval_"  # columns that a row of its own brings at a step that has its training row already


def components(columns: Iterable[str]) -> list[str]:
    """The parts of the reward among the columns of a run, in their order: reward functions and data sources."""
    return [key for key in columns if key.startswith((COMPONENT, SOURCE))]


def held_out(columns: Iterable[str]) -> list[str]:
    """The columns with accuracies and rewards on held-out questions, in their order."""
    return [key for key in columns if key in ("eval_accuracy", "eval_reward") or key.startswith((EVAL_ACCURACY, EVAL_REWARD))]


def label(key: str) -> str:
    """A metric's name for people, with its unit."""
    metric = METRIC.get(key)
    if metric is None and "/" in key:
        kind, _, name = key.partition("/")
        return f"{METRIC[kind].label if kind in METRIC else kind.replace('_', ' ')}, {name}"
    if metric is None:
        return key.replace("_", " ")
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label
