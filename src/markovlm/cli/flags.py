"""Flags of commands from the keys of the configuration, and what commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from markovlm.errors import UserError
from markovlm.terminal.plain import escaped_json

if TYPE_CHECKING:  # the configuration costs a tenth of a second, and commands on logs have none
    from markovlm.config import Key

_SHORT = {"device": "loading.device", "data": "data.path"}  # flags that every command shares -> configuration keys
EVAL_SECTIONS = (
    "model",
    "loading",
    "data",
    "prompt",
    "evaluation",
    "rollouts",
    "task_options",
    "task",
    "seed",
)  # not tasks: one at a time


class Command(click.Command):
    """A command whose flags for the configuration are made when they are asked for: plug-ins bring keys of their own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        sections = getattr(self.callback, "config_sections", None)
        flags = [] if sections is None else _config_options(sections)
        *own, help_option = super().get_params(ctx)
        return [*own, *flags, _PLUGIN, help_option]


_PLUGIN = click.Option(
    ["--plugin"],
    multiple=True,
    metavar="FILE",
    expose_value=False,  # read before commands are known: see `take_plugins`
    help="a Python file that registers objectives, rewards, tasks, studies, … (docs/plugins.md); repeatable",
)


def config_flags(*sections: str) -> Callable[[Any], Any]:
    """Add one flag for every configuration key (of the sections, or single keys, if any are named), from the descriptions in `config/`."""

    def decorate(function: Any) -> Any:
        function.config_sections = sections
        return function

    return decorate


def _config_options(sections: Sequence[str]) -> list[click.Parameter]:
    from markovlm.config import keys

    made: list[click.Parameter] = [
        click.Option(
            ["--option", "options"],
            multiple=True,
            metavar="KEY=VALUE",
            help="a task option, e.g. max_terms=7 (the same as --task_options.KEY VALUE); repeatable",
        )
    ]
    made += [click.Option([f"--{flag}", f"short__{flag}"], help=f"short for --{name}") for flag, name in _SHORT.items()]
    for key in keys():
        asked = not sections or key.name.split(".")[0] in sections or key.name in sections
        if key.name in ("task_options", "plugins") or not asked:
            continue
        metavar = None if key.choices else "VALUE"
        made.append(click.Option([f"--{key.name}", _parameter(key.name)], type=_flag_type(key), metavar=metavar, help=_help(key)))
    return made


def take_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """`--plugin FILE` (or `=FILE`), wherever it is, taken out: (the other arguments, the files). Raises UserError without a file."""
    rest: list[str] = []
    files: list[str] = []
    waiting = False
    for argument in arguments:
        if waiting:
            files.append(argument)
            waiting = False
        elif argument == "--plugin":
            waiting = True
        elif argument.startswith("--plugin="):
            files.append(argument.removeprefix("--plugin="))
        else:
            rest.append(argument)
    if waiting or "" in files:
        raise UserError("--plugin: name a Python file")
    return rest, files


def _parameter(name: str) -> str:
    return "key__" + name.replace(".", "__")


def _flag_type(key: Key) -> Any:
    return None if key.default == () or not key.choices else click.Choice(key.choices)


def _help(key: Key) -> str:
    only = f" (only {', '.join(key.only_for)})" if key.only_for else ""
    changed = [f"{', '.join(names)}: {other.default}" for names, other in key.otherwise if other.default != key.default]
    default = "" if key.default in (None, ()) else f" [default {'; '.join((str(key.default), *changed))}]"
    return f"{key.description}{only}{default}"


def overrides(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that the given flags make up, nested."""
    from markovlm.config import keys, merge, nest

    flat: dict[str, Any] = {}
    names = {_parameter(key.name): key for key in keys()}
    for flag, value in flags.items():
        if flag in names and value is not None:
            flat[names[flag].name] = _value(names[flag], value)
    for flag, name in _SHORT.items():
        if flags.get(f"short__{flag}") is not None:
            flat[name] = flags[f"short__{flag}"]
    nested = nest(flat)
    pairs = dict(_pair(text) for text in flags.get("options", ()))
    return merge(nested, {"task_options": pairs}) if pairs else nested


def _value(key: Key, text: str) -> Any:
    """A list or null as YAML writes it, a comma-separated list where the key is one; everything else is for the config to read."""
    import yaml

    if key.name == "tasks":
        return dict(_pair(part.strip()) for part in text.split(",")) if not text.startswith("{") else yaml.safe_load(text)
    if text == "null" or text.startswith("["):
        return yaml.safe_load(text)
    return (
        [part.strip() for part in text.split(",")] if key.default == () or (key.name == "lora.targets" and "," in text) else text
    )


def _pair(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{text!r}: write KEY=VALUE (--option max_terms=7, --tasks gsm8k=2,svamp=1)")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


def task_option_flags(arguments: Sequence[str]) -> list[str]:
    """`--task_options.KEY VALUE` -> `--option KEY=VALUE`: keys that depend on the task can't be declared beforehand."""
    out: list[str] = []
    waiting: str | None = None
    for argument in arguments:
        if waiting is not None:
            out += ["--option", f"{waiting}={argument}"]
            waiting = None
        elif argument.startswith("--task_options."):
            name, equals, value = argument.removeprefix("--task_options.").partition("=")
            if equals:
                out += ["--option", f"{name}={value}"]
            else:
                waiting = name
        else:
            out.append(argument)
    return out if waiting is None else [*out, f"--task_options.{waiting}"]


def print_json(value: Any) -> None:
    """One object on standard output."""
    click.echo(escaped_json(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)))


map_option = click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS|FILE",
    help="name the log's column for one of our metrics (--map reward=train/reward), or give a YAML file of such names; "
    "repeatable",
)
