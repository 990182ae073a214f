"""Reading, merging, validating and writing configurations."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from markovlm.config.keys import keys, known_keys
from markovlm.config.objective import ObjectiveBase, objective_classes, objective_from
from markovlm.config.run import RunConfig
from markovlm.content import Yaml, parse_yaml, read_content
from markovlm.errors import UserError
from markovlm.plugins import is_loaded

_MOST = 4 << 20  # bytes of a configuration


def build_config(*layers: Mapping[str, Any], source: str = "configuration") -> RunConfig:
    """Validate the layers merged left to right (later ones win). Raises UserError naming the first wrong field."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    _require_plugins(merged.get("plugins"), source)
    try:
        objective = merged.get("objective")
        if isinstance(objective, Mapping):  # first and apart: its errors then name its own keys
            merged["objective"] = _objective(cast("Mapping[str, Any]", objective), source)
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise UserError(f"{source}: {describe_validation(error)}") from None


def _require_plugins(named: Any, source: str) -> None:
    """A configuration can name Python files, but not have them run: that is for the user to say."""
    paths = map(str, cast("list[Any]", named)) if isinstance(named, list | tuple) else ()
    missing = [path for path in dict.fromkeys(paths) if not is_loaded(path)]
    if not missing:
        return
    flags = " ".join(f"--plugin {path}" for path in missing)
    if len(missing) == 1:
        raise UserError(f"{source}: needs the plug-in {missing[0]}; it is Python code, so load it yourself with {flags}")
    raise UserError(
        f"{source}: needs the plug-ins {', '.join(missing)}; they are Python code, so load them yourself with {flags}"
    )


def _objective(values: Mapping[str, Any], source: str) -> ObjectiveBase:
    try:
        return objective_from(values)
    except ValidationError as error:
        raise UserError(f"{source}: {describe_validation(error, 'objective')}") from None
    except ValueError as error:
        raise UserError(f"{source}: objective.name: {error}") from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge; naming another objective drops the keys that only the old one has."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if key == "objective" and isinstance(old, Mapping) and isinstance(value, Mapping):
            out[key] = _merge_objective(cast(Mapping[str, Any], old), cast(Mapping[str, Any], value))
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            out[key] = merge(cast(Mapping[str, Any], old), cast(Mapping[str, Any], value))
        else:
            out[key] = value
    return out


def _merge_objective(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    name = new.get("name", old.get("name", "grpo"))
    if name != old.get("name", "grpo") and name in objective_classes():
        shared = objective_classes()[name].model_fields
        old = {key: value for key, value in old.items() if key in shared}
    return {**old, **new}


def load_yaml(path: Path) -> dict[str, Any]:
    """A configuration file as a nested dict. Raises UserError with file and line."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a directory, not a configuration file (to continue a run, use --resume)")
        text = read_content(path, _MOST).decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a UTF-8 text file; expected a YAML configuration") from None
    try:
        loaded = parse_yaml(text, _Once)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(
            f"{where}: not valid YAML: {getattr(error, 'problem', None) or str(error) or 'cannot be parsed'}"
        ) from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: must be a mapping of keys, not {type(loaded).__name__}")
    return {str(key): value for key, value in cast(dict[Any, Any], loaded).items()}


def load_recorded(path: Path) -> dict[str, Any]:
    """The configuration that a run recorded, whole. Where its version had no such key yet, what that version did is filled in.

    Whose run it is, nobody knows: a record can't allow that code from a model's repository is run.
    """
    recorded = load_yaml(path)
    loading = _section(recorded, "loading")
    if loading.get("trust_remote_code"):
        recorded["loading"] = {**loading, "trust_remote_code": False}
    objective, evaluation = _section(recorded, "objective"), _section(recorded, "evaluation")
    if "answer_end" not in objective:  # up to 0.1: no end was scored, and CoTs were sampled as in training
        recorded["objective"] = {**objective, "answer_end": "open"}
        if evaluation.get("decoding") != "greedy":
            recorded["evaluation"] = {**evaluation, "temperature": evaluation.get("temperature") or "training"}
    _fill_answer_kind(recorded)
    return recorded


def _fill_answer_kind(recorded: dict[str, Any]) -> None:
    """Up to 0.1 the answers of task custom were numbers unless the configuration said otherwise; later records always say."""
    tasks = _section(recorded, "tasks")
    if recorded.get("task") == "custom" and "answer_type" not in _section(recorded, "task_options"):
        recorded["data"] = {
            **_section(recorded, "data"),
            "answer_kind": _section(recorded, "data").get("answer_kind") or "number",
        }
    own = _section(tasks, "custom")
    if own and "answer_type" not in _section(own, "options"):
        recorded["tasks"] = {**tasks, "custom": {**own, "answer_kind": own.get("answer_kind") or "number"}}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return dict(cast("Mapping[str, Any]", found)) if isinstance(found, Mapping) else {}


class _Once(Yaml):
    """Refuses a duplicate key in a mapping: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {name}", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def dump_yaml(config: RunConfig) -> str:
    """YAML that `load_yaml` and `build_config` turn back into the same configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _hint(key: str) -> str:
    owners = next((known.only_for for known in keys() if known.name == key), ())
    if owners:
        return f"it belongs to {', '.join(owners)}"
    guess = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.6)
    return f"did you mean {guess[0]}?" if guess else "`markovlm train --help` lists all keys"


def describe_validation(error: ValidationError, section: str = "") -> str:
    """One line for a pydantic error: key (in `section`), what is wrong, and a suggestion for an unknown key."""
    details = error.errors()
    first = details[0]
    key = ".".join(map(str, (section, *first["loc"]) if section else first["loc"]))
    if first["type"] == "extra_forbidden":
        message = f"unknown key; {_hint(key)}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":
            message += f" (got {first['input']!r:.80})"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{key}: {message}{more}" if key else f"{message}{more}"
