"""What counts as an alarm: the table, fixed by reasoning, each row with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["warn", "collapsed"]
Measure = Literal["value", "below_early", "below_best", "fraction_of_best", "times_early"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """One row of the table: when a signal is beyond its threshold, for how long, and what that means."""

    signal: str  # name of the metric (or of a derived signal, see `monitor._derive`)
    measure: Measure  # how `warn` and `collapse` are to be read
    comparison: Literal["above", "below"]
    warn: float | None
    collapse: float | None
    needed: int  # this many …
    rows: int  # … of this many rows that carry the signal
    kind: str  # the kind of collapse it shows
    reason: str
    floor: float = 0.0  # `times_early`: the value must also exceed this times the factor
    gain_excuses: bool = False  # with a clear gain over the early level: a warning at most
    solved_excuses: bool = False  # silent while the answers are right


# fmt: off
THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(
        "non_finite", "value", "above", 0, None, 1, 1, "non_finite",
        "A value that is not finite in loss, reward or gradient: one may be an overflow that was skipped.",
    ),
    Threshold(
        "non_finite", "value", "above", None, 0, 3, 3, "non_finite",
        "Three rows in a row: the weights themselves are no longer finite.",
    ),
    Threshold(
        "answer_logprob", "below_early", "below", 1.0, 2.0, 1, 1, "logprob_crash",
        "Nats per answer token under the run's early level, noise allowed for. 2 nats: the gold answer became 7 times less "
        "likely per token than before training.",
    ),
    Threshold(
        "reward_mean", "below_early", "below", 1.0, 2.0, 1, 1, "reward_crash",
        "The same for a log-prob reward (scaled up where the reward is a sum over tokens).",
    ),
    Threshold(
        "normalized_reward_mean", "below_early", "below", 1.0, 2.0, 1, 1, "reward_crash",
        "The same for the reward less the frozen model's: below zero and falling, the CoT is worse than no training.",
    ),
    Threshold(
        "reward_mean", "fraction_of_best", "below", None, 0.2, 1, 1, "reward_crash",
        "Where a run learns and breaks within its first twenty rows, before there is noise to test against: four fifths of the best "
        "median of ten rows gone, the best being at least 0.3, a row resting on 16 samples or more.",
    ),
    Threshold(
        "answer_correct_fraction", "fraction_of_best", "below", None, 0.2, 1, 1, "accuracy_crash",
        "The same for the share of right answers.",
    ),
    Threshold(
        "answer_logprob", "below_best", "below", 2.0, None, 1, 1, "decay",
        "2 nats per answer token under the run's best level: what was learned is being lost, text may still be fluent.",
    ),
    Threshold(
        "normalized_reward_mean", "below_best", "below", 2.0, None, 1, 1, "decay",
        "The same for the normalised reward.",
    ),
    Threshold(
        "ratio", "value", "above", 3.0, 5.0, 3, 3, "ratio_explosion",
        "The clip range ends at 1.2. A mean ratio of 5 (or 1/5) is 1.6 nats of drift, in every token where the ratio is of mean "
        "log-probs. It shows drift, not its cause, so a gain in reward makes it a warning.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "ratio_max", "value", "above", 100.0, 10_000.0, 4, 5, "ratio_explosion",
        "The largest of thousands of token ratios may reach tens by chance; 10,000 in most steps means lost importance weights.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "ratio_clipped_fraction", "value", "above", 0.9, None, 9, 10, "ratio_explosion",
        "Nine of ten ratios outside the clip range: hardly any sample still teaches.",
    ),
    Threshold(
        "char_run_share", "value", "above", 0.3, 0.5, 4, 5, "repeated_character",
        "Longest run of one character over CoT tokens (over 100 where the length is not logged), run of at least 20. A token "
        "is one to "
        "four characters, so 0.5 is an eighth to a half of a CoT. Counted only where the group's bigrams agree: a "
        "rule of dashes in one sample is no collapse.",
        solved_excuses=True,
    ),
    Threshold(
        "distinct_bigram_fraction", "value", "below", 0.35, 0.2, 4, 5, "repetition",
        "Prose has 0.9, running sums of digits 0.6 and more, a repeated phrase of ten words 0.16, one character 0.02.",
        solved_excuses=True,
    ),
    Threshold(
        "compression_ratio", "value", "below", 0.2, 0.1, 4, 5, "repetition",
        "Prose compresses to 0.5, long running sums to 0.2 in the worst case, loops to 0.05.",
        solved_excuses=True,
    ),
    Threshold(
        "identical_cot_fraction", "value", "above", 0.8, 0.95, 4, 5, "identical_cots",
        "Samples of a group are copies of one text, so the group has no spread and teaches nothing; normal only once answers "
        "are right.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "entropy", "value", "below", 0.05, 0.02, 4, 5, "entropy_death",
        "Nats per token. 0.02 is a next token chosen with probability 0.997: no exploration is left. Normal only once "
        "answers are right.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "groups_without_spread", "value", "above", 0.9, None, 9, 10, "identical_cots",
        "Nine of ten groups have equal rewards: no advantage, no learning.",
        solved_excuses=True,
    ),
    Threshold(
        "grad_norm", "times_early", "above", 30.0, 300.0, 3, 5, "gradient_blow_up",
        "Before clipping, against the early median of steps that trained. Clipping bounds the step, not its direction: at "
        "300 times "
        "the usual norm one sample decides it.",
        floor=1.0 / 3.0, gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "kl", "value", "above", 4.0, 12.0, 4, 5, "drift",
        "Nats per token from the frozen model. 12 is as far as a uniform choice among 128,000 tokens is from certainty.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "cot_length", "value", "below", 2.0, 1.0, 4, 5, "empty_cot",
        "Tokens. A CoT of less than one token on average is none at all.",
        solved_excuses=True,
    ),
    # Chains. Warnings: such notes are useless for what comes later, but whoever predicts the next chunk alone may do well with them.
    Threshold(
        "notes_frozen", "value", "above", 0.8, None, 4, 5, "frozen_notes",
        "Four states in five are what the one before was, although another chunk was read: nothing new enters the notes.",
        solved_excuses=True,
    ),
    Threshold(
        "notes_copied", "value", "above", 0.8, None, 4, 5, "copied_notes",
        "Four states in five say only what their chunk says: the state is a window of one chunk and no memory.",
        solved_excuses=True,
    ),
    Threshold(
        "notes_overflow", "value", "above", 0.9, None, 9, 10, "overflowing_notes",
        "Nine states in ten are cut off by their budget: what stands at their end is lost at every step.",
        solved_excuses=True,
    ),
    Threshold(
        "notes_kept", "value", "below", 0.05, None, 4, 5, "forgotten_notes",
        "Not one word in twenty of a state is in the next one: what was known is forgotten at every step.",
        solved_excuses=True,
    ),
    Threshold(
        "copies_question_fraction", "value", "above", 0.8, None, 18, 20, "copies_question",
        "Four of five CoTs say their question again, lack the answer and add little. Base models do so on sums before they learn to "
        "reckon, with one sample a row in seven of ten rows: eighteen of twenty are asked for.",
    ),
    Threshold(
        "answer_run_on_fraction", "value", "above", 0.1, None, 4, 5, "answers_run_on",
        "After one CoT in ten all gold tokens are the reader's likeliest and the end of the reply is not: the reward is high and the reply is "
        "wrong (`85+5=94` for 85). With the end of the reply scored it stays under 0.01; a study of both: docs/likelihood-gap.md.",
    ),
    Threshold(
        "question_specificity", "value", "below", 0.05, None, 18, 20, "ignores_question",
        "The CoT holds as much of another question as of its own. CoTs that reason about word problems have 0.5 and more, sums 0.9. A bare "
        "answer has 0 too, and is right.",
        solved_excuses=True,
    ),
)
# fmt: on

# What each kind of collapse is called in a sentence.
KINDS: Mapping[str, str] = {
    "non_finite": "values that are not finite",
    "logprob_crash": "the answer's log-probability crashed",
    "reward_crash": "the reward crashed",
    "accuracy_crash": "right answers were lost",
    "decay": "what was learned decays",
    "ratio_explosion": "the policy ratio exploded",
    "repeated_character": "the CoT repeats one character",
    "repetition": "the CoT repeats itself",
    "identical_cots": "all CoTs of a group are the same",
    "entropy_death": "the policy has no entropy left while answers are wrong",
    "gradient_blow_up": "the gradient blew up",
    "drift": "the policy is far from the frozen model",
    "empty_cot": "the CoT is empty",
    "frozen_notes": "the notes no longer change",
    "copied_notes": "the notes copy their chunk",
    "overflowing_notes": "the notes overflow their budget",
    "forgotten_notes": "the notes forget what they knew",
    "copies_question": "the CoT restates its question",
    "ignores_question": "the CoT would fit any question",
    "answers_run_on": "the gold answer is said and the reply runs on",
    "evaluation_fell": "accuracy in evaluations fell",
    "truncation": "completions run into the length limit",
    "entropy_explosion": "the policy's entropy exploded",
    "kl_runaway": "KL to the frozen model runs away",
    "sampler_mismatch": "sampler and trainer drift apart",
}
