"""The keys of the configuration as flags and rows of the documentation."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, cast, get_args, get_origin

from markovlm.config.base import Section
from markovlm.config.objective import ObjectiveBase, objective_classes
from markovlm.config.run import RunConfig
from markovlm.registry import REWARDS, SAMPLERS


class Key:
    """One leaf of the configuration: what a flag or a row of the documentation needs to know."""

    __slots__ = ("choices", "default", "description", "name", "only_for", "otherwise")

    def __init__(self, name: str, description: str, default: Any, choices: tuple[str, ...], only_for: tuple[str, ...]):
        self.name = name  # "training.lr"
        self.description = description
        self.default = default
        self.choices = choices
        self.only_for = only_for  # objectives that have it; empty: all
        self.otherwise: list[tuple[tuple[str, ...], Key]] = []  # objectives that mean something else by it, and what

    def of_another(self, objective: str, key: Key) -> None:
        """The key of the same name of one more objective."""
        self.choices = tuple(dict.fromkeys((*self.choices, *key.choices)))
        if (key.default, key.description) == (self.default, self.description):
            return
        for number, (names, other) in enumerate(self.otherwise):
            if (key.default, key.description) == (other.default, other.description):
                self.otherwise[number] = ((*names, objective), other)
                return
        self.otherwise.append(((objective,), key))


def keys() -> list[Key]:
    """All leaf keys of RunConfig in order, those of every objective merged: what the first that has one says, and what others say otherwise."""
    found: dict[str, Key] = {}
    for key in _walk(RunConfig, ""):
        found.setdefault(key.name, key)
    shared = set(ObjectiveBase.model_fields)
    found["objective.name"] = Key(
        "objective.name", "how advantages and the policy loss are formed", "grpo", tuple(objective_classes()), ()
    )
    for name, cls in objective_classes().items():
        for key in _walk(cls, "objective."):
            field = key.name.removeprefix("objective.")
            if field == "name":
                continue
            if key.name in found:
                found[key.name].of_another(name, key)
            known = found.setdefault(key.name, key)
            if field not in shared:
                known.only_for = (*known.only_for, name)
    found["objective.reward"].choices = tuple(REWARDS)
    found["rollouts.backend"].choices = ("auto", *SAMPLERS)
    del found["objective.reward_options"]
    for key in _reward_keys():
        key.only_for = (*(found[key.name].only_for if key.name in found else ()), *key.only_for)
        found[key.name] = key
    return list(found.values())


def _reward_keys() -> Iterator[Key]:
    """Options that the rewards bring along."""
    for reward, made in REWARDS.usable().items():
        for key in _walk(made.Options, "objective.reward_options."):
            key.only_for = (f"reward {reward}",)
            yield key


def known_keys() -> list[str]:
    """Names of all keys and of their sections."""
    names = [key.name for key in keys()]
    return names + sorted({name.split(".")[0] for name in names if "." in name})


def _walk(cls: type[Section], prefix: str) -> Iterator[Key]:
    for name, field in cls.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _walk(annotation, f"{prefix}{name}.")
        elif name == "objective":
            continue
        else:
            yield Key(f"{prefix}{name}", field.description or "", field.default, _choices(annotation), ())


def _choices(annotation: Any) -> tuple[str, ...]:
    """All values that a key can have besides null; empty if it can have others, such as any number beside a word."""
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_choices(part) for part in get_args(annotation) if part is not types.NoneType]
        return tuple(choice for part in parts for choice in part) if all(parts) else ()
    return ()


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"training.lr": 1} -> {"training": {"lr": 1}}."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        here = out
        for section in sections:
            here = here.setdefault(section, {})
        here[leaf] = value
    return out


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `nest`."""
    out: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            out |= flatten(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
