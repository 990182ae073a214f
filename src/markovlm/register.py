"""Extend markovlm from outside: decorators that register a thing under a name, for every command and configuration.

    from markovlm import register

    @register.objective          # a class with `Config` (its options, with a default for `name`), `credit` and `policy_loss`
    @register.reward("name")     # a subclass of markovlm.Reward
    @register.task("name", answer_type="number")       # a function (split, seed, options) -> examples; or register.task(object)
    @register.extractor("name", answer_type="number")  # a function (text, choices) -> answer or None
    @register.perturbation("name")                     # a function (text, severity, rng, context) -> text
    @register.reader("name", recognises=…)             # a function (path, max_samples) -> RunData
    @register.sampler("name")                          # a function (SamplerPlace) -> markovlm.Sampler
    @register.study("name")                            # a function (markovlm's Study of a run's CoTs) -> rows of a table

A distribution names the same things under entry points (groups `markovlm.objectives`, `.rewards`, `.tasks`, `.extractors`,
`.perturbations`, `.readers`, `.samplers`, `.studies`), a single file is loaded with `--plugin FILE`. docs/plugins.md has a template for each.
Each raises UserError in one line if a thing is not what it must be, or if its name is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

from markovlm.config.base import Section
from markovlm.config.objective import ObjectiveBase
from markovlm.errors import UserError
from markovlm.registry import EXTRACTORS, OBJECTIVES, PERTURBATIONS, READERS, REWARDS, SAMPLERS, STUDIES, TASKS, close_match
from markovlm.rewards.base import Reward
from markovlm.tasks.base import ANSWER_TOKENS, DEFAULT_EXTRACTORS, LIKELIHOOD, AnswerType, PromptKind
from markovlm.tasks.checks import kind_problem, missing_members

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
_METHODS = {  # of an objective
    "credit": "method credit(self, reward), which gives a markovlm.Credit",
    "policy_loss": "method policy_loss(self, batch), which markovlm.PolicyGradient brings",
}


def objective(cls: C) -> C:
    """Register an objective class; its name is the default of `name` in its `Config`, a subclass of `markovlm.ObjectiveConfig`."""
    source = _source_of(cls)
    config = getattr(cls, "Config", None)
    if not (isinstance(config, type) and issubclass(config, ObjectiveBase)) or config is ObjectiveBase:
        raise UserError(
            f"{source}: objective {cls.__name__} needs a class attribute Config, a subclass of markovlm.ObjectiveConfig"
        )
    name = config.model_fields["name"].default
    if not name:
        raise UserError(f'{source}: {config.__name__} needs a name: write `name: str = "…"`')
    missing = [method for method in _METHODS if not callable(getattr(cls, method, None))]
    if missing:
        raise UserError(f"{source}: objective {name!r} has no {' and no '.join(_METHODS[method] for method in missing)}")
    OBJECTIVES.add(name, cls, source, cls.__module__)
    return cls


def reward(name: str) -> Callable[[C], C]:
    """Register a reward, a subclass of `markovlm.Reward`; its options are its `Options`."""

    def decorate(cls: C) -> C:
        source = _source_of(cls)
        made: Any = cls
        if not (isinstance(made, type) and issubclass(made, Reward)):
            raise UserError(f"{source}: reward {name!r} must be a subclass of markovlm.Reward")
        if made.value is Reward.value:
            raise UserError(f"{source}: reward {name!r} has no method value")
        REWARDS.add(name, cls, source, cls.__module__)
        return cls

    return decorate


def task(
    named: str | Any,
    *,
    answer_type: AnswerType = "number",
    summary: str = "",
    cot_tokens: int = 100,
    prompt_kind: PromptKind | None = None,
    extractors: Sequence[str] | None = None,
    answer_tokens: int | None = None,
    held_out: int = 200,
    options: type[Section] | None = None,
) -> Any:
    """Register a task: an object that implements `markovlm.Task` (which has a name) or, as a decorator with a name, a function.

    The function is called as `generate(split, seed, options)` with split "train", "dev" or "test" and yields `markovlm.Example`s. What
    it yields for dev and test must not depend on the run's seed (it is called with 0); training questions that are among them are left
    out.
    """
    if not isinstance(named, str):
        source = _source_of(type(named))
        missing = missing_members(named)
        if missing:
            raise UserError(
                f"{source}: a task needs {', '.join(missing)}: see markovlm.Task, or register a function that yields examples"
            )
        problem = kind_problem(named.answer_type, named.prompt_kind)
        if problem:
            raise UserError(f"{source}: task {named.name!r}: {problem}")
        TASKS.add(named.name, named, source)
        return named

    def decorate(generate: F) -> F:
        from markovlm.tasks.generated import GeneratedTask, NoOptions

        source = _source_of(generate)
        _check_takes(generate, "split, seed, options", f"the generator of task {named!r}")
        kind = prompt_kind or ("multiple_choice" if answer_type == "letter" else "reasoning")
        problem = kind_problem(answer_type, kind)
        if problem:
            raise UserError(f"{source}: task {named!r}: {problem}")
        unknown = [one for one in extractors or () if one != LIKELIHOOD and one not in EXTRACTORS]
        if unknown:
            raise UserError(f"{source}: task {named!r}: no extractor {unknown[0]!r}{close_match(unknown[0], EXTRACTORS)}")
        if options is not None and not (isinstance(options, type) and issubclass(options, Section)):
            raise UserError(f"{source}: task {named!r}: options must be a subclass of markovlm.Options")
        made = GeneratedTask(
            named,
            summary or (inspect.getdoc(generate) or named).splitlines()[0],
            generate=generate,
            answer_type=answer_type,
            prompt_kind=kind,
            default_cot_tokens=cot_tokens,
            max_answer_tokens=answer_tokens or ANSWER_TOKENS[answer_type],
            extractors=tuple(extractors) if extractors is not None else DEFAULT_EXTRACTORS[answer_type],
            held_out=held_out,
            Options=options or NoOptions,
        )
        TASKS.add(named, made.configured({}), source, generate.__module__)
        return generate

    return decorate


def extractor(name: str, *, answer_type: AnswerType) -> Callable[[F], F]:
    """Register a way to read an answer: (answer text, choices) -> canonical answer, or None if there is none.

    `evaluation.extractors` names it, alone or beside others; the first decides what counts as right.
    """

    def decorate(read: F) -> F:
        from markovlm.tasks.answers import Extractor

        source = _source_of(read)
        if answer_type not in get_args(AnswerType):
            raise UserError(
                f"{source}: extractor {name!r}: answer_type {answer_type!r} is not one of {', '.join(get_args(AnswerType))}"
            )
        _check_takes(read, "text, choices", f"extractor {name!r}")
        EXTRACTORS.add(name, Extractor(read, answer_type), source, read.__module__)
        return read

    return decorate


def perturbation(name: str, *, summary: str = "", severities: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0)) -> Callable[[F], F]:
    """Register a perturbation of a CoT's text: (text, severity as a Fraction, numpy generator, context) -> text.

    `context` has the question and another example's CoT. The function is never called with severity 0.
    """

    def decorate(rule: F) -> F:
        from markovlm.analysis.perturb import Perturbation

        source = _source_of(rule)
        bad = [s for s in severities if not 0 < s <= 1]
        if bad or not severities:
            raise UserError(f"{source}: perturbation {name!r}: severities must be above 0 and at most 1")
        _check_takes(rule, "text, severity, rng, context", f"perturbation {name!r}")
        says = summary or (inspect.getdoc(rule) or name).splitlines()[0]
        PERTURBATIONS.add(
            name, Perturbation(name, "meaning", says, source, tuple(severities), None, on_text=rule), source, rule.__module__
        )
        return rule

    return decorate


class _Reads(Protocol):
    def __call__(self, path: Path, max_samples: int) -> Any: ...


def reader(name: str, *, recognises: Callable[[Path, Sequence[Mapping[str, Any]]], bool]) -> Callable[[F], F]:
    """Register a log parser: (path, max_samples) -> `markovlm.RunData`.

    `recognises(path, first_rows)` decides by content whether a file is of this kind; `first_rows` are the first few JSON objects in it,
    if it has any. It is asked before the built-in parsers. `diagnose` and `report` then read such files.
    """

    def decorate(read: F) -> F:
        from markovlm.logs.readers import LogReader

        _check_takes(recognises, "path, first_rows", f"recognises of reader {name!r}")
        _check_takes(read, "path, max_samples", f"reader {name!r}")
        READERS.add(name, LogReader(name, recognises, read), _source_of(read), read.__module__)
        return read

    return decorate


def sampler(name: str) -> Callable[[F], F]:
    """Register a way to sample the CoTs of training, chosen by `rollouts.backend`: (SamplerPlace) -> `markovlm.Sampler`.

    Its log-probs are compared with the trainer's in every step, and corrected for as `rollouts.importance` says.
    """

    def decorate(build: F) -> F:
        _check_takes(build, "place", f"sampler {name!r}")
        SAMPLERS.add(name, build, _source_of(build), build.__module__)
        return build

    return decorate


def study(name: str) -> Callable[[F], F]:
    """Register a study of CoTs: (markovlm.analysis.study.Study) -> rows, each a mapping of column -> text, number, None or an estimate.

    `markovlm loadbearing --plugin FILE` runs it beside the built-in ones; its result is kept, printed and reported as theirs are. The
    first line of its docstring is the question that it answers.
    """

    def decorate(ask: F) -> F:
        from markovlm.analysis.own import check_name

        source = _source_of(ask)
        check_name(name, source)
        _check_takes(ask, "study", f"study {name!r}")
        STUDIES.add(name, ask, source, ask.__module__)
        return ask

    return decorate


def _check_takes(function: Any, arguments: str, what: str) -> None:
    """Raises UserError if a function can't be called with these arguments, by position."""
    try:
        inspect.signature(function).bind(*arguments.split(", "))
    except ValueError:  # written in C: it has no signature
        return
    except TypeError as error:
        raise UserError(f"{_source_of(function)}: {what} is called as ({arguments}): {error}") from error


def _source_of(thing: Any) -> str:
    """Where a thing was written, for messages: file and name."""
    try:
        return Path(inspect.getfile(thing)).name
    except (TypeError, OSError):
        return getattr(thing, "__module__", "plug-in")


__all__ = ["extractor", "objective", "perturbation", "reader", "reward", "sampler", "study", "task"]
