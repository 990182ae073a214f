"""Models the package knows by name: the embedded ones, and what each brings along as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model with defaults of its own; any other causal LM is given by path or Hub id."""

    name: str
    summary: str
    asset: str | None = None  # folder under markovlm/assets
    defaults: dict[str, Any] = field(default_factory=dict)  # nested configuration, weaker than the user's
    tried_lr: float = 2e-3  # highest learning rate that held up on ten seeds (docs/findings.md); METHOD §7 saw 4e-3 break all

    @property
    def path(self) -> Path:
        """Directory of an embedded model."""
        if self.asset is None:
            raise ValueError(f"{self.name} is not embedded")
        return Path(str(resources.files("markovlm.assets") / self.asset))


_EMBEDDED_DEFAULTS: dict[str, Any] = {
    "task": "arithmetic",
    "rollouts": {"questions_per_step": 4, "group_size": 16, "max_cot_tokens": 48},
    "training": {"steps": 50, "lr": "linear 2e-3 -> 0", "eval_every": 25, "checkpoint_every": 25},
    "evaluation": {"batch_size": 256, "dev_size": 100},
}

KNOWN: dict[str, KnownModel] = {
    "embedded": KnownModel(
        "embedded", "0.8 M parameters, ships with the package; sums of 3 to 5 terms", "arithmetic", _EMBEDDED_DEFAULTS
    ),
    "embedded-shortcut": KnownModel(
        "embedded-shortcut",
        "as embedded, but it knows the sums of two terms without reasoning; sums of 2 to 4 terms",
        "shortcut",
        {**_EMBEDDED_DEFAULTS, "task_options": {"min_terms": 2, "max_terms": 4}},
    ),
    "embedded-words": KnownModel(
        "embedded-words",
        "0.5 M parameters, ships with the package; word problems of 1 to 3 steps, in sentences",
        "words",
        {
            "task": "words",
            "task_options": {"max_steps": 3},
            "rollouts": {"questions_per_step": 4, "group_size": 16, "max_cot_tokens": 80},
            "training": {"steps": 120, "lr": "linear 3e-3 -> 0", "eval_every": 40, "checkpoint_every": 40},
            "evaluation": {"batch_size": 256, "dev_size": 100},
        },
        tried_lr=3e-3,
    ),
    "embedded-notes": KnownModel(
        "embedded-notes",
        "0.9 M parameters, ships with the package; keeps the balance of a ledger in notes, chunk by chunk",
        "notes",
        {
            "task": "ledger",
            "task_options": {"accounts": 1, "events": 1, "questions": 1, "ask_each": True},
            "chain": {"kind": "notes_then_questions", "state_tokens": 16},
            "objective": {"name": "rloo"},
            "rollouts": {"questions_per_step": 4, "group_size": 16},
            "training": {"steps": 200, "lr": "linear 2e-3 -> 0", "eval_every": 50, "checkpoint_every": 50},
            "evaluation": {"batch_size": 256, "dev_size": 100},
        },
    ),
}

# Hub ids that the method has been used with (METHOD §4); shown by `markovlm models`, loadable like any other.
SUGGESTED: dict[str, str] = {
    "meta-llama/Llama-3.1-8B": "the paper's base model (gated: accept its licence on the Hub first)",
    "meta-llama/Llama-3.1-8B-Instruct": "the model of the seed's ten runs (gated)",
    "Qwen/Qwen3-4B": "the paper's second model",
    "google/gemma-3-1b-it": "small instruct model (gated)",
    "openai-community/gpt2": "124 M parameters, for a first try without a licence",
}


_TRIED_LR = 1e-4  # elsewhere: the seed's rate at 8B; its own recommendation is half of it


def highest_tried_lr(model: str) -> float:
    """The highest learning rate that is known to hold up for a model."""
    return KNOWN[model].tried_lr if model in KNOWN else _TRIED_LR


def model_defaults(model: str) -> dict[str, Any]:
    """Configuration that comes with a model name; empty for paths and Hub ids."""
    return KNOWN[model].defaults if model in KNOWN else {}


def peers(model: str) -> tuple[str, ...]:
    """The known models that are for the same task as this one, itself among them; none for paths and Hub ids."""
    task = model_defaults(model).get("task")
    return tuple(name for name in KNOWN if task is not None and KNOWN[name].defaults["task"] == task)


def resolve(model: str) -> str:
    """Path of an embedded model; any other name unchanged."""
    return str(KNOWN[model].path) if model in KNOWN else model
