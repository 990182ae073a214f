"""Models the package knows by name: those that ship with it, those that it fetches, and what each brings along as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from markovlm.config.schedule import Schedule
from markovlm.errors import UserError
from markovlm.models.fetch import converted, fetched, is_fetched, place_of
from markovlm.models.gguf import gguf_file
from markovlm.models.sources import GEMMA3_270M, SMOLLM2, ModelSource
from markovlm.registry import close_match


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model with defaults of its own; any other causal LM is given by path or Hub id."""

    name: str
    summary: str
    asset: str | None = None  # folder under markovlm/assets; None: fetched
    defaults: dict[str, Any] = field(default_factory=dict)  # nested configuration, weaker than the user's
    # Highest learning rates that held up (docs/findings.md): falling to 0 over the run, and otherwise. Of the embedded model: ten seeds;
    # 4e-3 broke all in a first trial.
    tried_lr: float = 2e-3
    tried_lr_held: float | None = None  # None: the same
    source: ModelSource | None = None  # where it is fetched from

    @property
    def path(self) -> Path:
        """Its directory; fetched first, where it does not ship with the package and is not here yet."""
        if self.asset is not None:
            return Path(str(resources.files("markovlm.assets") / self.asset))
        return fetched(self.name, self.fetched_from)

    @property
    def fetched_from(self) -> ModelSource:
        """Of a model that does not ship with the package."""
        assert self.source is not None
        return self.source

    @property
    def embedded(self) -> bool:
        """Whether it ships with the package."""
        return self.asset is not None


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
        "like embedded, but knows sums of two terms without reasoning; sums of 2 to 4 terms",
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
    "smollm2": KnownModel(
        "smollm2",
        "135 M parameters, instruct; Llama, 49,152 tokens",
        defaults={
            "task": "words",
            "task_options": {"max_steps": 1, "distractors": 0, "max_value": 20, "question": "end"},
            "prompt": {"mention_budget": False},  # a model of this size calculates with the number
            # With a live gradient at this rate the reader learns which answers are frequent before a CoT is worth reading.
            "objective": {"actor_reward_weight": 0, "baseline_every": 10},
            "rollouts": {"questions_per_step": 2, "group_size": 16, "max_cot_tokens": 24, "temperature": 0.7},
            "training": {"steps": 30, "lr": "linear 1e-3 -> 0", "warmup_steps": 2, "eval_every": 15, "checkpoint_every": 15},
            "evaluation": {"batch_size": 60, "dev_size": 60},
        },
        source=SMOLLM2,
        tried_lr=1e-3,  # seven seeds on words and text; at 3e-3 it learned next to nothing, at 1e-2 it fell apart
        tried_lr_held=3e-4,  # PPO on ARC for 50 steps; 1e-3 broke it
    ),
    "gemma3-270m": KnownModel(
        "gemma3-270m",
        "268 M parameters, base; Gemma 3, 262,144 tokens",
        source=GEMMA3_270M,
        tried_lr=1e-4,
    ),
}
EMBEDDED = {name: model for name, model in KNOWN.items() if model.embedded}
FETCHED = {name: model for name, model in KNOWN.items() if not model.embedded}
_OF_A_TASK = ("task", "task_options", "chain")  # defaults that mean nothing for another task

# Hub ids that the method has been used with; shown by `markovlm models`, loadable like any other.
SUGGESTED: dict[str, str] = {
    "meta-llama/Llama-3.1-8B": "the paper's base model (gated: accept its licence on the Hub first)",
    "meta-llama/Llama-3.1-8B-Instruct": "the model of the seed's ten runs (gated)",
    "Qwen/Qwen3-4B": "the paper's second model",
    "google/gemma-3-1b-it": "small instruct model (gated)",
    "openai-community/gpt2": "124 M parameters, for a first try without a licence",
}


_TRIED_LR = 1e-4  # elsewhere: the seed's rate at 8B; its own recommendation is half of it


def highest_tried_lr(model: str, lr: Schedule) -> float:
    """The highest peak known to work for a model, of rates that fall to 0 as `lr` does, or that don't."""
    known = KNOWN.get(model)
    if known is None:
        return _TRIED_LR
    return known.tried_lr if lr.end == 0 or known.tried_lr_held is None else known.tried_lr_held


def lr_above_tried(model: str, setting: object) -> tuple[float, float] | None:
    """(peak, the highest that held up) of a learning rate as configurations write it; None where it is not above, or can't be read."""
    try:
        lr = Schedule.parse(setting)
    except ValueError:
        return None
    tried = highest_tried_lr(model, lr)
    return (lr.maximum, tried) if lr.maximum > tried else None


def model_defaults(model: str, task: str | None = None) -> dict[str, Any]:
    """Configuration that comes with a model name; empty for paths and Hub ids. With another `task` than the model's own, without what
    belongs to that one (its options, its CoT budget)."""
    defaults = KNOWN[model].defaults if model in KNOWN else {}
    if task is None or defaults.get("task") in (None, task):
        return defaults
    kept = {key: value for key, value in defaults.items() if key not in _OF_A_TASK}
    rollouts = {key: value for key, value in defaults.get("rollouts", {}).items() if key != "max_cot_tokens"}
    return {**kept, "rollouts": rollouts}


def defaults_under(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the model that a configuration of these layers (the last one counts most) names, as far as they fit what it asks for.

    Several tasks, or another than the model's own, leave out what belongs to its task; a chain leaves out `prompt`, since its prompts always
    say the budget; fewer steps than the model's warm-up shorten it.
    """

    def asked(key: str, default: Any = None) -> Any:
        return next((layer[key] for layer in reversed(layers) if key in layer), default)

    several = any(layer.get("tasks") for layer in layers)
    defaults = model_defaults(str(asked("model", "embedded")), "" if several else asked("task"))
    if any("chain" in layer for layer in layers) and "chain" not in defaults:
        defaults = {key: value for key, value in defaults.items() if key != "prompt"}
    sections = [layer["training"] for layer in layers if isinstance(layer.get("training"), Mapping)]
    steps = str(
        next((section["steps"] for section in reversed(sections) if "steps" in section), "")
    )  # a text on the command line
    training = defaults.get("training", {})
    if steps.isdecimal() and int(steps) < training.get("warmup_steps", 0):
        defaults = {**defaults, "training": {**training, "warmup_steps": int(steps)}}
    return defaults


def peers(model: str) -> tuple[str, ...]:
    """The bundled models for the same task as this one, including itself; none for other models."""
    if model not in EMBEDDED:
        return ()
    task = EMBEDDED[model].defaults["task"]
    return tuple(name for name, other in EMBEDDED.items() if other.defaults["task"] == task)


def resolve(model: str) -> str:
    """What transformers loads: the directory of a known model (fetched first, if it is not here) or of a GGUF file (converted at first
    use), any other name unchanged. Raises UserError or RunFailed in one line where that fails."""
    if model in KNOWN:
        return str(KNOWN[model].path)
    file = gguf_file(model)
    return model if file is None else str(converted(file))


def check_path(name: str) -> None:
    """Raises UserError for a name that can only be a local path, or only a known model's, and is neither: before transformers tries the
    Hub.
    """
    path = Path(name).expanduser()
    if name in KNOWN or gguf_file(name) is not None:
        return
    if not path.exists() and "/" not in name and (close := close_match(name, KNOWN)):
        raise UserError(f"model: unknown model {name!r}{close}")
    if not _looks_local(name, path):
        return
    if not path.exists():
        raise UserError(
            f"model: {name!r} does not exist; name a run, a directory made by save_pretrained, a GGUF file, a Hub id, or a name of `markovlm models`"
        )
    if not path.is_dir():
        raise UserError(f"model: {name!r} is neither a directory made by save_pretrained nor a GGUF file")
    if not (path / "config.json").exists():
        raise UserError(f"model: {name!r} has no config.json, so it was not made by save_pretrained")


def _looks_local(name: str, path: Path) -> bool:
    """A Hub id is `NAME` or `ORG/NAME`; what begins with a directory that is here, or with the one where runs go, is none."""
    first, slash, rest = name.partition("/")
    if name.startswith((".", "/", "~")) or name.endswith(".gguf") or "/" in rest or (slash and not rest) or path.exists():
        return True
    return bool(slash) and (first == "runs" or Path(first).is_dir())


def known_at(directory: str) -> str | None:
    """The name of the known model that lies in a directory, on this machine or another: what PEFT records as an adapter's base."""
    last = Path(directory).parts[-2:]
    for name, model in KNOWN.items():
        if last == ("assets", model.asset) or (not model.embedded and last[-1:] == (place_of(name, model.fetched_from).name,)):
            return name
    return None


def is_here(model: str) -> bool:
    """Whether `resolve` can do without the package index."""
    return model not in FETCHED or is_fetched(model, FETCHED[model].fetched_from)
