"""The configuration of a run: frozen, validated, one definition for YAML keys and command-line flags.

Every field carries its description, which is what `markovlm train --help` and `docs/configuration.md` print.
Nonsense fails here, at construction, with the name of the field.
"""

from markovlm.config.files import build_config, describe_validation, dump_yaml, load_recorded, load_yaml, merge
from markovlm.config.keys import Key, flatten, keys, known_keys, nest
from markovlm.config.objective import ObjectiveBase, objective_classes
from markovlm.config.run import CHANGEABLE, RunConfig
from markovlm.config.schedule import Schedule

__all__ = [
    "CHANGEABLE",
    "Key",
    "ObjectiveBase",
    "RunConfig",
    "Schedule",
    "build_config",
    "describe_validation",
    "dump_yaml",
    "flatten",
    "keys",
    "known_keys",
    "load_recorded",
    "load_yaml",
    "merge",
    "nest",
    "objective_classes",
]
