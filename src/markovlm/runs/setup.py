"""From a configuration to the objects that it names: task, model, prompts, examples."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.chains.prompter import build_chain_prompter
from markovlm.config import RunConfig
from markovlm.errors import UserError
from markovlm.models.adapters import BadAdapter
from markovlm.models.load import LanguageModel, load_model
from markovlm.plugins import calling, is_plugin, named
from markovlm.registry import TASKS
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.prompter import Prompter, build_prompter
from markovlm.rollouts.streams import torch_seed
from markovlm.rollouts.types import Sampler
from markovlm.runs.asking import chosen_kind, columns_of, hub_of, options_of, parts_of, task_of, with_kind
from markovlm.runs.manifest import check_checkpoint, damaged
from markovlm.tasks.base import ENDLESS, Example, Loaded, LoadRequest, Task
from markovlm.tasks.chain import ChainExample
from markovlm.tasks.checks import example_problem
from markovlm.tasks.extractors import with_extractors
from markovlm.tasks.folds import assert_disjoint, without_overlap
from markovlm.tasks.mixture import Mixture, under_its_name
from markovlm.tasks.prompts import UNSAID, is_compact

if TYPE_CHECKING:
    from markovlm.models.sharding import Shards

_LOOKED_AT = 32  # questions


@dataclass(slots=True)
class Setup:
    """The objects that a configuration names. `config` is the resolved one: nothing in it is left to defaults."""

    config: RunConfig
    task: Task
    lm: LanguageModel
    prompter: Prompter
    notes: tuple[str, ...] = ()  # what was chosen where the configuration left it open, to be said with the data's notes

    def sampler(self) -> Sampler:
        """The trainer's own sampler, used for evaluations and studies; `rollouts.backend` chooses the sampler of training."""
        rollouts = self.config.rollouts
        return HFSampler(self.lm, rollouts.batch_tokens, static_cache=rollouts.static_cache)

    def load(self, split: str, limit: int | None = None, *, disjoint: bool = True) -> Loaded:
        """Examples of a split; `disjoint` as in `load_examples`."""
        loaded = load_examples(self.config, self.task, split, limit=limit, tokenizer=self.lm.tokenizer, disjoint=disjoint)
        return replace(loaded, notes=(*self.notes, *loaded.notes)) if self.notes else loaded


def prepare(
    config: RunConfig,
    *,
    adapter: Path | None = None,
    trainable: bool = False,
    local_device: str | None = None,
    shards: Shards | None = None,
) -> Setup:
    """Load model and task, and resolve what the configuration leaves open. Raises UserError for what is missing or damaged.

    `trainable` without `adapter` makes a fresh LoRA adapter; with neither, the bare base model is loaded. `shards` as in `load_model`.
    """
    task = task_with_extractors(config)
    lora = config.lora if trainable else None
    seed = torch_seed(config.seed, "adapter") % 2**63
    if adapter is not None:
        check_checkpoint(adapter, training=trainable)
    try:
        lm = load_model(
            config.model, config.loading, lora=lora, adapter=adapter, seed=seed, local_device=local_device, shards=shards
        )
    except BadAdapter as error:
        assert adapter is not None
        raise damaged(adapter, error.reason, training=trainable) from error
    resolved = resolve_config(config, task, lm.tokenizer, _first_questions(config, task, lm.tokenizer))
    prompter = prompter_of(resolved, task, lm.tokenizer)
    end = prompter.end
    if prompter.answer_end == "scored" and end is not None and not prompter.answer_stop and end not in lm.terminators:
        lm.terminators += (end,)  # some generation configs do not name their own template's end of turn
    chosen = [kind.note for part in parts_of(config).values() if (kind := chosen_kind(part)) is not None]
    return Setup(resolved, task, lm, prompter, tuple(chosen))


def prompter_of(config: RunConfig, task: Task, tokenizer: Any) -> Prompter:
    """The prompter of a task for a model; a prompter of chains if the (resolved) configuration has chains."""
    tokens, prompt = config.rollouts.max_cot_tokens, config.prompt
    assert tokens is not None
    end = config.objective.answer_end
    if not config.prompt.mention_budget:
        tokens = UNSAID
    if config.chain.on:
        return build_chain_prompter(config.chain, task, tokenizer, prompt.style, tokens, prompt.answer_header, answer_end=end)
    return build_prompter(task, tokenizer, prompt.style, tokens, prompt.answer_header, answer_end=end)


def task_with_extractors(config: RunConfig) -> Task:
    """The task with the extractors that `evaluation.extractors` names; with several tasks, each with its own."""
    found = task_of(config)
    if isinstance(found, Mixture):
        return Mixture({name: with_extractors(part, config.evaluation.extractors) for name, part in found.parts.items()})
    return with_extractors(found, config.evaluation.extractors)


def _first_questions(config: RunConfig, task: Task, tokenizer: Any) -> Sequence[Example]:
    """A few questions, by which the prompt style is chosen where the tokenizer leaves a choice: only the embedded models' does."""
    if config.chain.on or config.prompt.style != "auto" or not is_compact(tokenizer) or task.prompt_kind == "arithmetic":
        return ()
    for split in dict.fromkeys((config.data.train_split, config.data.dev_split, config.data.test_split)):
        with contextlib.suppress(UserError):  # told where the split is really needed
            return load_examples(config, task, split, limit=_LOOKED_AT, tokenizer=tokenizer).examples
    return ()


def resolve_config(config: RunConfig, task: Task, tokenizer: Any, questions: Sequence[Example] = ()) -> RunConfig:
    """Fill in what depends on task, tokenizer and questions (CoT budget, prompt style), and what is `auto` in `rollouts`."""
    tokens = config.chain.state_tokens or config.rollouts.max_cot_tokens or task.default_cot_tokens
    end = config.objective.answer_end
    if config.chain.on:
        style = build_chain_prompter(config.chain, task, tokenizer, config.prompt.style, tokens, None, answer_end=end).style
    else:
        style = build_prompter(task, tokenizer, config.prompt.style, tokens, None, questions, answer_end=end).style
    return with_kind(config).model_copy(
        update={
            "rollouts": config.rollouts.model_copy(
                update={
                    "max_cot_tokens": tokens,
                    "backend": "hf" if config.rollouts.backend == "auto" else config.rollouts.backend,
                    "importance": config.rollouts.correction,
                }
            ),
            "prompt": config.prompt.model_copy(update={"style": style}),
        }
    )


def load_examples(
    config: RunConfig, task: Task, split: str, *, limit: int | None = None, tokenizer: Any = None, disjoint: bool = True
) -> Loaded:
    """Examples of one split, from `data.path`, `data.hub`, the task's own dataset on the Hub, or the task's generator.

    `disjoint`: cut as a run needs it, which trains on one split, chooses on another and reports a third. Otherwise a single data file
    is taken whole, and `split` is only a label.
    """
    if isinstance(task, Mixture):
        return _of_all_parts(config, task, split, limit, tokenizer, disjoint)
    path = Path(config.data.path).expanduser() if config.data.path else None
    request = LoadRequest(
        split=split,
        data=path,
        hub=hub_of(config),
        columns=columns_of(config),
        limit=limit,
        seed=config.seed,
        strict=config.data.strict,
        tokenizer=tokenizer,
        options=options_of(config),
        disjoint=disjoint,
    )
    with calling(TASKS, task.name, "load"):
        loaded = task.load(request)
    if is_plugin(TASKS, task.name):
        _check_loaded(task, loaded)
    if not config.chain.on and len(loaded.examples) and isinstance(loaded.examples[0], ChainExample):
        raise UserError(f"task {task.name} is a text to be read in chunks: set chain.kind=notes_then_questions (docs/chains.md)")
    kind = chosen_kind(config)
    return loaded if kind is None else replace(loaded, notes=(kind.note, *loaded.notes))


def _check_loaded(task: Task, loaded: object) -> None:
    """Raises UserError if a plug-in's task gives no `Loaded`, or examples that are none (of a stream without end a few are looked at)."""
    if not isinstance(loaded, Loaded):
        raise UserError(f"{named(TASKS, task.name)}: load returned {type(loaded).__name__}, not a markovlm.tasks.base.Loaded")
    few = min(len(loaded.examples), _LOOKED_AT) if is_endless(loaded.examples) else len(loaded.examples)
    problem = next(filter(None, (example_problem(loaded.examples[i], task) for i in range(few))), None)
    if problem:
        raise UserError(f"{named(TASKS, task.name)}: its examples hold {problem}")


def _of_all_parts(config: RunConfig, task: Mixture, split: str, limit: int | None, tokenizer: Any, disjoint: bool) -> Loaded:
    """Task after task, the first `limit` (or, of a stream without end, a few) of each."""
    examples: list[Example] = []
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    for name, part in parts_of(config).items():
        found = load_examples(part, task.parts[name], split, limit=limit, tokenizer=tokenizer, disjoint=disjoint)
        few = [found.examples[i] for i in range(_LOOKED_AT)] if is_endless(found.examples) else found.examples
        examples += under_its_name(name, few)
        skipped, notes = skipped + found.skipped, notes + found.notes
    return Loaded(examples, skipped, notes)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run trains on, and what it chooses checkpoints on."""

    train: dict[str, Loaded]  # by task
    dev: Loaded | None  # of all tasks; None: no evaluation during training

    @property
    def all(self) -> list[Loaded]:
        return [*self.train.values(), *([self.dev] if self.dev is not None else [])]


def check_splits(config: RunConfig) -> None:
    """Raise UserError if training questions would also be the held-out ones."""
    data = config.data
    for name in ("dev_split", "test_split"):
        if getattr(data, name) == data.train_split:
            raise UserError(f"data.{name} and data.train_split are both {data.train_split!r}: trained on, it can't be held out")


def load_for_training(setup: Setup) -> TrainingData:
    """Load train and dev questions. They share no question with each other or with test (the loader ensures it).

    Raises UserError if the configuration uses one split for two purposes, RunFailed if a question is in both.
    """
    data, size = setup.config.data, setup.config.evaluation.dev_size
    check_splits(setup.config)
    dev = setup.load(data.dev_split, limit=size) if setup.config.training.eval_every else None
    train: dict[str, Loaded] = {}
    for name, part in parts_of(setup.config).items():
        task = setup.task.parts[name] if isinstance(setup.task, Mixture) else setup.task
        train[name] = load_examples(part, task, data.train_split, tokenizer=setup.lm.tokenizer)
    # a generator's stream keeps away from held-out questions by construction
    listed = {name: found for name, found in train.items() if not is_endless(found.examples)}
    splits = dict.fromkeys((data.dev_split, data.test_split)) if listed else ()
    held_out = {split: _held_out(setup, split, dev) for split in splits}
    for name, found in listed.items():
        found = _apart(found, held_out) if setup.config.tasks else found
        for questions in held_out.values():
            assert_disjoint(found.examples, questions)
        if setup.config.tasks:
            found = Loaded(under_its_name(name, found.examples), found.skipped, found.notes)
        train[name] = found
    return TrainingData(train, dev)


def _apart(train: Loaded, held_out: dict[str, Sequence[Example]]) -> Loaded:
    """Without questions that another task of the run holds out."""
    for split, questions in held_out.items():
        kept = without_overlap(train.examples, questions)
        if len(kept) < len(train.examples):
            note = f"train: {len(train.examples) - len(kept)} questions removed because another task has them in {split}"
            train = Loaded(kept, train.skipped, (*train.notes, note))
    if not train.examples:
        raise UserError("data: no training question is left: every one is held out by another task")
    return train


def _held_out(setup: Setup, split: str, dev: Loaded | None) -> Sequence[Example]:
    if dev is not None and split == setup.config.data.dev_split:
        return dev.examples
    try:
        return setup.load(split).examples
    except UserError:
        return ()  # a source without that split holds nothing out


def is_endless(examples: Sized) -> bool:
    """Whether the split is a generator's endless stream, which can't be listed."""
    return len(examples) >= ENDLESS
