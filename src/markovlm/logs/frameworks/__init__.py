"""The frameworks whose logs are read: one record each, metrics and settings both ways."""

from __future__ import annotations

from collections.abc import Mapping

from markovlm.logs.frameworks.base import Framework
from markovlm.logs.frameworks.openrlhf import OPENRLHF
from markovlm.logs.frameworks.others import LLAMA_FACTORY, NEMO_RL, PRIME_RL, SKYRL, SLIME
from markovlm.logs.frameworks.ours import OURS
from markovlm.logs.frameworks.tinker import TINKER
from markovlm.logs.frameworks.trl import MS_SWIFT, TRANSFORMERS, TRL
from markovlm.logs.frameworks.verl import VERL

__all__ = ["FRAMEWORKS", "NAMED", "OURS", "SETTINGS", "Framework", "framework_named"]

# Those that a log is recognised as, by its keys.
FRAMEWORKS: tuple[Framework, ...] = (TRL, VERL, OPENRLHF, TINKER, NEMO_RL, PRIME_RL, SLIME, SKYRL, LLAMA_FACTORY, OURS)
NAMED: Mapping[str, Framework] = {found.name: found for found in (*FRAMEWORKS, MS_SWIFT, TRANSFORMERS)}
# Their settings (dotted where nested) -> ours; of a name that two frameworks share the first counts.
SETTINGS: Mapping[str, str] = {
    theirs: ours
    for framework in reversed(tuple(NAMED.values()))
    if framework is not OURS
    for ours, names in framework.settings.items()
    for theirs in names
}


def framework_named(name: str) -> Framework | None:
    """The record of a log's framework; of our own runs (""), ours; None if it is not known."""
    return NAMED.get(name or OURS.name)
