"""The learning curves of the report as a table: to draw another signal, add a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from markovlm.logs.schema import METRIC, label


def series_name(column: str) -> str:
    """A column's name without its unit."""
    return METRIC[column].label if column in METRIC else label(column)


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel. A `*` in `columns` stands for any text; the first column of two is drawn thick, more get dashes of their own."""

    group: str
    columns: tuple[str, ...]
    title: str | None = None  # else the first column's name and unit
    log: bool = False  # a logarithmic axis where values span a factor of 50
    limit: str | None = None  # the setting whose value the metric cannot pass, drawn as a level
    unless_same_as: str | None = None  # a panel of one column is not drawn where in every run it equals this one

    @property
    def name(self) -> str:
        """The figure's name."""
        return self.columns[0].replace("*", "all").replace("/", "-")

    def present(self, known: Iterable[str]) -> list[str]:
        """The columns of this panel among the known ones."""
        names = list(known)
        return list(dict.fromkeys(name for pattern in self.columns for name in names if fnmatchcase(name, pattern)))

    def heading(self, found: list[str]) -> str:
        """Title of the panel where these columns are drawn."""
        if self.title is not None:
            return self.title
        thin = f"; thin: {series_name(found[1])}" if len(found) == 2 else ""
        return label(found[0]) + thin

    @property
    def bounds(self) -> tuple[float, float] | None:
        """A fraction stays within 0 and 1."""
        metric = METRIC.get(self.columns[0])
        return (0.0, 1.0) if metric is not None and metric.unit == "fraction" else None


ANSWER, POLICY, TEXT, NOTES, OPTIMISER = "Reward and answer", "Policy", "Text of the CoTs", "Notes of the chains", "Optimiser"
SAMPLER = "Sampler against trainer"
CHARTS: tuple[Chart, ...] = (
    Chart(ANSWER, ("reward_mean", "eval_reward"), unless_same_as="answer_logprob"),
    Chart(ANSWER, ("normalized_reward_mean",)),
    Chart(ANSWER, ("reward/*",), title="reward by component"),
    Chart(ANSWER, ("reward_std",)),
    Chart(ANSWER, ("groups_without_spread",)),
    Chart(ANSWER, ("answer_logprob", "baseline_answer_logprob")),
    Chart(ANSWER, ("answer_correct_fraction", "answer_exact_fraction")),
    Chart(ANSWER, ("answer_run_on_fraction",)),
    Chart(ANSWER, ("accuracy", "eval_accuracy")),
    Chart(ANSWER, ("cot_contains_answer",)),
    Chart(POLICY, ("kl",), log=True),
    Chart(POLICY, ("ratio_mean",), log=True),
    Chart(POLICY, ("ratio_clipped_fraction", "ratio_clipped_low_fraction", "ratio_clipped_high_fraction")),
    Chart(POLICY, ("entropy",)),
    Chart(TEXT, ("cot_length", "cot_length_terminated"), limit="rollouts.max_cot_tokens"),
    Chart(TEXT, ("cot_length_saturated_fraction",)),
    Chart(TEXT, ("distinct_bigram_fraction",)),
    Chart(TEXT, ("longest_char_run",), log=True),
    Chart(TEXT, ("identical_cot_fraction",)),
    Chart(NOTES, ("notes_frozen",)),
    Chart(NOTES, ("notes_copied",)),
    Chart(NOTES, ("notes_overflow",)),
    Chart(NOTES, ("notes_kept",)),
    Chart(OPTIMISER, ("grad_norm",), log=True),
    Chart(OPTIMISER, ("loss", "eval_loss")),
    Chart(OPTIMISER, ("loss_*",), title="terms of the loss", unless_same_as="loss"),
    Chart(OPTIMISER, ("token_accuracy",)),
    Chart(SAMPLER, ("sampler_gap",), log=True),
    Chart(SAMPLER, ("sampler_kl",), log=True),
    Chart(SAMPLER, ("sampler_ratio_mean", "sampler_ratio_min", "sampler_ratio_max"), log=True),
)
