"""What to change, in the terms and with the numbers of the run at hand.

A rule advises by *knobs*, which every framework calls something else, and by plain sentences. A knob becomes `lower actor_learning_rate from 1e-6 to
5e-7` where the log says what it was, `halve actor_learning_rate` where it does not, and `halve the learning rate` where the framework is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markovlm.logs.frameworks import OURS, Framework, framework_named
from markovlm.research_logs.keys import SETTINGS

if TYPE_CHECKING:
    from markovlm.health.case import Case


@dataclass(frozen=True, slots=True)
class Knob:
    """Something that one can turn. `setting` is our configuration key for it, `factor` by how much to turn it."""

    plain: str  # what to do, where no name is known
    setting: str = ""
    factor: float = 1.0


KNOBS: Mapping[str, Knob] = {
    "rate": Knob("halve the learning rate", "training.lr", 0.5),
    "kl": Knob("keep the policy closer to its start: double the weight of the KL term", "objective.kl_weight", 2.0),
    "clip": Knob("clip gradients at half of the norm", "training.max_grad_norm", 0.5),
    "limit": Knob("double the length that completions may have", "rollouts.max_cot_tokens", 2.0),
    "groups": Knob("double the number of completions of a prompt", "rollouts.group_size", 2.0),
    "entropy": Knob("lower the entropy bonus", "objective.entropy_weight", 0.5),
    "truncated": Knob("leave truncated completions out of the loss, or penalise length before the limit"),
    "exploration": Knob("keep exploration: a higher temperature, or a wider clip range upwards (0.28)"),
    "sampler": Knob("correct for the sampler's probabilities (importance ratios), with the same temperature, top_p, top_k and dtype on both sides"),
    "filter": Knob("leave out prompts whose completions all get one reward, or bring other data"),
    "dtype": Knob("use bfloat16 with a float32 master copy, not float16"),
    "stop": Knob("check the end token: that the tokenizer, the chat template and the sampler's stop settings mean the same one"),
    "passes": Knob("make fewer updates of one batch of completions (fewer epochs, larger mini-batches)"),
}  # fmt: skip
BEFORE = "restart from the last good checkpoint before the onset"
GUARD = "stop a run like this one: HealthCallback in a Trainer, or `markovlm watch LOG`"
OUR_GUARD = "train with health.policy: stop, so that the guard ends a run like this one"
NO_KL = "set {name} above 0 (0.001 to 0.04 is usual): it is 0, so nothing keeps the policy near its start"


def number_text(value: float) -> str:
    """`1e-6`, `0.002`, `512`."""
    return re.sub(
        r"e([+-])0*(\d)",
        lambda m: f"e{'-' if m[1] == '-' else ''}{m[2]}",
        f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}",
    )


def advice_of(lines: Iterable[str], case: Case) -> tuple[str, ...]:
    """Knobs and sentences as one says them about this run."""
    framework = framework_of(case)
    return tuple(_turned(line, framework, case) if line in KNOBS else _said(line, framework, case) for line in lines)


def framework_of(case: Case) -> Framework | None:
    """The names to use: the framework's whose log it is, ours for our own runs and the research code's; None for home-made loops."""
    if case.run.framework:
        return framework_named(case.run.framework)
    return OURS if case.run.native or case.run.kind.startswith("g") else None


def _turned(name: str, framework: Framework | None, case: Case) -> str:
    knob = KNOBS[name]
    value = case.value_of(knob.setting) if knob.setting else None
    said = framework.knobs.get(name) if framework is not None else None
    if said is not None:
        return said.replace("{now}", f" ({number_text(value)} here)" if value else "")
    theirs = framework.setting(knob.setting) if framework is not None and knob.setting else None
    if theirs is None:
        if value and knob.setting == "training.lr":
            return f"lower the learning rate from {number_text(value)} to {number_text(value * knob.factor)}"
        return knob.plain
    if value == 0.0 and name == "kl":
        return NO_KL.replace("{name}", theirs)
    if not value:
        return f"{'halve' if knob.factor < 1 else 'double'} {theirs}"
    return f"{'lower' if knob.factor < 1 else 'raise'} {theirs} from {number_text(value)} to {number_text(value * knob.factor)}"


_RESEARCH = {ours: theirs for theirs, ours in SETTINGS.items() if "." in ours} | {
    "objective.name: grpo": "parallel_samples: true"
}
_OUR_KEY = re.compile(r" ?\((?:[a-z_]+\.[a-z_]+)\)|\b(?:training|objective|rollouts|loading|evaluation|chain|health)\.[a-z_]+\b")


def _said(line: str, framework: Framework | None, case: Case) -> str:
    """A sentence with the run's names in place of our configuration keys."""
    if framework is OURS:
        if case.run.native:
            return line
        for ours, theirs in _RESEARCH.items():
            line = line.replace(ours, theirs)
        return line
    if line == OUR_GUARD:
        return GUARD

    def named(match: re.Match[str]) -> str:
        key = match[0].strip(" ()")
        theirs = framework.setting(key) if framework is not None else None
        if match[0].endswith(")"):
            return f" ({theirs})" if theirs is not None else ""
        return theirs or key.partition(".")[2].replace("_", " ")

    return _OUR_KEY.sub(named, line)
