"""Published and earlier results, as data, for comparison with evaluations of the same task and model.

Numbers are copied from the paper's table and from the seed's training analysis; none is measured here. Each says how it was obtained,
which matters for a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal["accuracy", "logprob_per_token"]  # the second in nats, mean over the target's tokens

PAPER = "arXiv 2404.18988, ICLR 2026 version"
PAPER_EARLIER = "arXiv 2404.18988, earlier version, as quoted in the seed's training analysis"
SWEEP = "sweep table of the research repository (the paper leaves this column out)"
SEED = "seed-training-analysis.md, 18 November 2025"

HOW_PAPER = (
    "CoT sampled at the training temperature and fixed length, greedy answer read by the actor where the reward weight "
    "is above 0 and by the frozen model where it is 0; plain prompts; checkpoint picked on the test set"
)
HOW_SEED = "last checkpoint only, evaluated once, no base model beside it"

_LLAMA = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-8B",
)  # the paper writes the second, its code loads the first
_QWEN = ("Qwen/Qwen3-4B",)


@dataclass(frozen=True, slots=True)
class Reference:
    """One number: `Reference("gsm8k", (…), "markovian", "accuracy", 0.571, PAPER, HOW_PAPER)`."""

    task: str
    models: tuple[str, ...]
    setting: str  # base, or how the model was trained
    metric: Metric
    value: float
    source: str
    how: str
    extractor: str = ""  # empty where the source does not say
    n: int | None = None  # test questions, where the source says


_PAPER_SETTINGS = (
    "base",
    "expert_iteration",
    "ema",
    "no_reward_gradient",
    "markovian",
    "non_markovian",
    "ppo_frozen_anchor",
)
_PAPER_TABLE: dict[str, tuple[float, ...]] = {
    "gsm8k": (0.196, 0.616, 0.000, 0.622, 0.571, 0.633, 0.000),
    "arc": (0.361, 0.656, 0.265, 0.793, 0.799, 0.786, 0.000),
    "mmlu": (0.214, 0.532, 0.238, 0.466, 0.555, 0.687, 0.000),
    "svamp": (0.180, 0.387, 0.000, 0.407, 0.423, 0.433, 0.000),
    "arithmetic": (0.010, 0.760, 0.975, 0.810, 0.980, 0.970, 1.000),
    "wiki": (-3.200, -2.279, -3.331, -2.647, -2.564, -2.900, -4.228),
}
_QWEN_TABLE = {"gsm8k": (0.130, 0.716), "arc": (0.398, 0.850), "mmlu": (0.318, 0.605), "svamp": (0.283, 0.317)}
_SEED_TABLE: dict[str, tuple[int, dict[str, float]]] = {  # n, accuracy by extractor
    "gsm8k": (1319, {"anchor": 0.0523}),
    "mmlu": (154, {"legacy": 0.1800, "word_boundary": 0.2400}),
    "aqua": (254, {"legacy": 0.0354, "word_boundary": 0.1142}),
    "svamp": (30, {"anchor": 0.2333}),
    "arc": (294, {"legacy": 0.0, "word_boundary": 0.0}),
}


def _paper() -> list[Reference]:
    return [
        Reference(
            task, _LLAMA, setting, "logprob_per_token" if task == "wiki" else "accuracy", value,
            SWEEP if setting == "ppo_frozen_anchor" else PAPER, HOW_PAPER,
        )
        for task, row in _PAPER_TABLE.items()
        for setting, value in zip(_PAPER_SETTINGS, row, strict=True)
    ]  # fmt: skip


def _qwen() -> list[Reference]:
    return [
        Reference(task, _QWEN, setting, "accuracy", value, PAPER, HOW_PAPER)
        for task, row in _QWEN_TABLE.items()
        for setting, value in zip(("base", "markovian"), row, strict=True)
    ]


def _earlier() -> list[Reference]:
    values = {"gsm8k": 0.545, "arc": 0.769}
    return [
        Reference(task, _LLAMA, "markovian", "accuracy", value, PAPER_EARLIER, "not stated there")
        for task, value in values.items()
    ]


def _seed() -> list[Reference]:
    return [
        Reference(
            task, _LLAMA[:1], "seed_ppo_frozen_anchor" if task == "arc" else "seed_markovian", "accuracy", value,
            SEED, HOW_SEED, extractor, n,
        )
        for task, (n, row) in _SEED_TABLE.items()
        for extractor, value in row.items()
    ]  # fmt: skip


REFERENCES: tuple[Reference, ...] = (*_paper(), *_qwen(), *_earlier(), *_seed())


def lookup(task: str, model: str) -> tuple[Reference, ...]:
    """The reference numbers of a task and a model (its Hub name, with or without owner, in any case)."""
    wanted = model.rstrip("/").lower()
    return tuple(
        reference
        for reference in REFERENCES
        if reference.task == task and any(wanted in (name.lower(), name.rpartition("/")[2].lower()) for name in reference.models)
    )
