"""From a configuration, or a run directory, to a run in progress."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from markovlm._version import __version__
from markovlm.checks.ours import doubts
from markovlm.config import CHANGEABLE, RunConfig, build_config, dump_yaml, flatten, load_recorded
from markovlm.config.schedule import Schedule
from markovlm.errors import UserError
from markovlm.models.fingerprint import base_fingerprint
from markovlm.objectives import build_objective
from markovlm.plugins import calling, named
from markovlm.registry import SAMPLERS
from markovlm.rewards import build_reward
from markovlm.rollouts.foreign import ForeignSampler
from markovlm.rollouts.types import Sampler, SamplerPlace
from markovlm.runs.checkpoint import load_state, reading_checkpoint, restore_optimizer
from markovlm.runs.directory import RunDirectory
from markovlm.runs.manifest import READER_FILE, STATE_FILE, check_base, is_interim, read_manifest, run_identity
from markovlm.runs.setup import Setup, TrainingData, is_endless, load_for_training, prepare
from markovlm.tasks.base import Loaded
from markovlm.tasks.prompts import loses
from markovlm.training.agreement import begin_sampling
from markovlm.training.distributed import World
from markovlm.training.guard import Guard
from markovlm.training.questions import MixedQuestions, Questions
from markovlm.training.readers import reading_room
from markovlm.training.records import Learner
from markovlm.training.selfcheck import check_sampler
from markovlm.training.state import Progress, Run, note_event, warn
from markovlm.training.strategy import check_share, deal_weights
from markovlm.training.tryout import try_plugins

_SHOWN_SKIPS = 5
_FEW, _MANY = 64, 20_000  # questions that are looked at beforehand
_SLOW = {
    "states": "its recurrent layers pass no gradient through their cache: each CoT is scored with its prompt, which takes longer",
    "none": "its cache can't be copied: every sampled token and every scored CoT is computed from scratch, which takes much longer",
}
_WHOLE = "with gradient checkpointing its cache can't be used: each CoT is scored with its prompt, which takes longer"


def start_run(
    config: RunConfig,
    directory: RunDirectory,
    world: World,
    resume: bool,
    progress: Progress,
    sampler: Sampler | None,
    check: bool,
) -> Run:
    """Start a run. Everything checkable is checked before the run directory holds more than a lock (UserError, RunFailed)."""
    check_share(config, world.size)
    directory.clear_leftovers() if world.is_main else None
    saved = directory.saved_steps() if resume else []
    step = saved[-1] if saved else 0
    if config.training.steps < step:
        raise UserError(
            f"--training.steps {config.training.steps}: {directory.path} already has {step} steps; give as many or more"
        )
    adapter = directory.checkpoint(step) if saved else None
    local = (
        f"cuda:{world.local_rank}"
        if world.size > 1 and config.loading.device in ("auto", "cuda") and torch.cuda.is_available()
        else None
    )
    shards = deal_weights(config, world, local)
    setup = prepare(config, adapter=adapter, trainable=True, local_device=local, shards=shards)
    world.start(setup.lm.device.type)
    directory.path = world.broadcast(directory.path)  # a default --out is a random name, drawn by each process
    data = load_for_training(setup)
    dev_examples = list(data.dev.examples) if data.dev else []
    questions = _questions(setup.config, data)
    learner = _learner(setup, world, sampler or _sampler(setup, directory))
    guard = Guard(setup.config.health)
    run = Run(directory, setup, learner, questions, dev_examples, base_fingerprint(setup.lm), progress, guard, step=step)
    try:
        _try_out(run, resume, adapter, data, check)
    except BaseException:
        close_sampler(run)
        raise
    if shards is not None:
        note_event(run, "check", f"fsdp2: {shards.describe()}")
    return run


def _try_out(run: Run, resume: bool, adapter: Path | None, data: TrainingData, check: bool) -> None:
    """Questions and sampler tried out; then the first files are written."""
    unknown, step = _check_questions(run), run.step + 1
    try_plugins(run.config, run.questions.of_step(step, 2))
    begin_sampling(run.learner, step)
    gap = check_sampler(run.learner, run.questions.of_step(step, 2), step) if check else None
    if resume:
        _restore(run, adapter)
    else:
        _describe(run)
    _warn_at_start(run, data.all)
    if unknown:
        warn(run, unknown)
    if gap is not None:
        note_event(run, "check", "sampler and scorer agree", mean_gap=gap)


def _questions(config: RunConfig, data: TrainingData) -> Questions:
    if not config.tasks:
        (loaded,) = data.train.values()
        return Questions(loaded.examples, config.seed)
    weights = {name: share.weight for name, share in config.tasks.items()}
    return MixedQuestions({name: loaded.examples for name, loaded in data.train.items()}, weights, config.seed)


def _check_questions(run: Run) -> str:
    """Put the questions of the run to the model before anything is written: Raises UserError if one fails. A warning where it sees only
    part of them.
    """
    prompter, seen = run.setup.prompter, 0
    shown = [run.questions[i] for i in range(_looked_at(run))] + run.dev
    for example in shown:
        try:
            prompter.cot_prompt(example)
            prompter.reader_prompt(example, run.config.objective.conditioning)
            prompter.answer_ids(example)
        except UserError as error:
            raise UserError(f"question {example.id}: {error}") from None
        seen += loses(run.setup.lm.tokenizer, example.question)
    return f"{seen} of the first {len(shown)} questions have words that this model has no token for and can't see" if seen else ""


def _looked_at(run: Run) -> int:
    """How many training questions: all that will be asked, within reason; of a generator, which makes one like the other, a few."""
    if is_endless(run.questions):
        return _FEW
    return min(len(run.questions), run.config.training.steps * run.config.rollouts.questions_per_step, _MANY)


def _warn_at_start(run: Run, loaded: list[Loaded]) -> None:
    """Once: doubtful settings, what stands in for a split, rows that were left out."""
    for message in doubts(run.config):
        warn(run, message)
    if run.setup.lm.caching in _SLOW:
        warn(run, f"{run.config.model}: {_SLOW[run.setup.lm.caching]} (docs/architectures.md)")
    elif run.setup.lm.checkpointing == "whole":
        warn(run, f"{run.config.model}: {_WHOLE}")
    for note in dict.fromkeys((*run.setup.notes, *(note for part in loaded for note in part.notes))):
        warn(run, note)
    skipped = [line for part in loaded for line in part.skipped]
    for line in skipped[:_SHOWN_SKIPS]:
        warn(run, f"skipped: {line}")
    if len(skipped) > _SHOWN_SKIPS:
        warn(run, f"skipped: {len(skipped) - _SHOWN_SKIPS} more rows")


def _sampler(setup: Setup, directory: RunDirectory) -> Sampler:
    """The one that `rollouts.backend` names."""
    rollouts = setup.config.rollouts
    if not rollouts.foreign:
        return setup.sampler()
    folder = Path(rollouts.adapter_dir).expanduser() if rollouts.adapter_dir else directory.path / ".sampler.tmp"
    build = SAMPLERS.find(rollouts.backend)
    with calling(SAMPLERS, rollouts.backend, "it"):
        made = build(SamplerPlace(setup.lm, setup.config, folder))
    if not (callable(getattr(made, "sample", None)) and hasattr(made, "splits")):
        raise UserError(
            f"{named(SAMPLERS, rollouts.backend)} returned {type(made).__name__}; it must have a method sample(requests, decoding) "
            "and a count `splits`"
        )
    return made


def close_sampler(run: Run) -> None:
    """Remove the adapter from another program."""
    if isinstance(run.learner.sampler, ForeignSampler):
        run.learner.sampler.close()


def _learner(setup: Setup, world: World, sampler: Sampler) -> Learner:
    config = setup.config
    parameters = [parameter for _, parameter in setup.lm.adapter_parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=config.training.weight_decay)
    sharing = config.training.prompt_sharing
    if sharing == "auto" or not setup.lm.shares_prompts:
        sharing = "shared" if setup.lm.shares_prompts else "padded"
    return Learner(
        config,
        setup.lm,
        setup.prompter,
        sampler,
        build_objective(config.objective),
        build_reward(config.objective),
        reading_room(setup),
        optimizer,
        world,
        sharing,
    )


def _describe(run: Run) -> None:
    """config.yaml and environment.json of a new run."""
    if not run.main:
        return
    found = environment(run.setup, run.fingerprint)
    if any(read_manifest(run.directory.checkpoint(step)) is None for step in run.saved):
        found.pop("run")  # of a run that names itself every checkpoint has a manifest
    run.directory.write("environment.json", json.dumps(found, indent=1) + "\n")
    run.directory.write("config.yaml", dump_yaml(run.config))
    note_event(run, "start", f"{run.config.objective.name} on {run.config.task} with {run.config.model}")


def _restore(run: Run, adapter: Path | None) -> None:
    """Continue from the checkpoint `adapter`, or from the beginning where a run died before its first."""
    check_base(run.directory, run.setup.lm, run.fingerprint)
    if adapter is not None:
        load_trainer_state(run, adapter)
    if run.main:
        if run.guard.rollbacks and not run.directory.is_put_aside(run.guard.rollbacks):  # killed in the middle of a rollback
            run.directory.put_aside(run.step, run.guard.rollbacks)
        dropped = run.directory.cut_after(run.step if adapter is not None else -1)
        if not (run.directory.path / "environment.json").exists():
            _describe(run)
        changed = _changed(run)
        if changed:
            run.directory.write("config.yaml", dump_yaml(run.config))
        said = "".join(f", {key} {old} -> {new}" for key, (old, new) in changed.items())
        note_event(
            run, "resume", f"from step {run.step}{said}", rows_dropped=dropped, **({"changed": changed} if changed else {})
        )
        if "training.steps" in changed and (spanning := _spanning(run.config)):
            warn(
                run,
                f"training.steps has changed: {', '.join(spanning)} spans the whole run and continues as if it had been so from the start",
            )


def _changed(run: Run) -> dict[str, tuple[Any, Any]]:
    """What this call overrides: key -> (recorded, now)."""
    path = run.directory.path / "config.yaml"
    before, now = (
        flatten(config.model_dump(mode="json")) for config in (build_config(load_recorded(path), source=str(path)), run.config)
    )
    wanted = [key for key in now if key in CHANGEABLE or key.startswith("logging.")]
    return {key: (before.get(key), now[key]) for key in wanted if before.get(key) != now[key]}


def _spanning(config: RunConfig) -> list[str]:
    """Schedules that change over the whole run, by name."""
    parts = {"training": config.training, "rollouts": config.rollouts, "objective": config.objective}
    named = {f"{part}.{name}": value for part, section in parts.items() for name, value in section}
    return [name for name, value in named.items() if isinstance(value, Schedule) and value.shape != "constant" and not value.over]


def load_trainer_state(run: Run, checkpoint: Path) -> None:
    """Load everything of a checkpoint but the adapter."""
    state = load_state(checkpoint)
    restore_optimizer(checkpoint, run.learner.optimizer)
    with reading_checkpoint(checkpoint, STATE_FILE):
        run.learner.objective.load_state_dict(state.objective)
        run.learner.reward.load_state_dict(state.reward or run.learner.reward.state_dict())
        run.guard.load_state_dict(state.guard.model_dump())
    if run.learner.room.slow is not None:
        with reading_checkpoint(checkpoint, READER_FILE):
            run.learner.room.slow.load(checkpoint)
    run.learner.lr_scale, run.learner.attempt = state.lr_scale, state.attempt
    run.saved = {step for step in run.directory.saved_steps() if step <= state.step}
    run.interim = {step for step in run.saved if is_interim(run.directory.checkpoint(step))}
    run.best = None if state.best is None else state.best.model_dump()


def trainer_state(run: Run) -> dict[str, Any]:
    """The inverse of `load_trainer_state`, without the optimizer."""
    return {
        "objective": run.learner.objective.state_dict(),
        "reward": run.learner.reward.state_dict(),
        "lr_scale": run.learner.lr_scale,
        "attempt": run.learner.attempt,
        "guard": run.guard.state_dict(),
        "best": run.best,
        "base_fingerprint": run.fingerprint,
    }


def environment(setup: Setup, fingerprint: str) -> dict[str, Any]:
    """What a run depended on: versions, machine, seed, base model."""
    import accelerate
    import peft
    import transformers

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return {
        "markovlm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "platform": platform.platform(),
        "processes": processes,
        "strategy": "fsdp2" if setup.lm.shards is not None else "ddp" if processes > 1 else "single",
        "torch_threads": torch.get_num_threads(),
        "device": str(setup.lm.device),
        "device_name": torch.cuda.get_device_name(setup.lm.device) if setup.lm.device.type == "cuda" else platform.processor(),
        "dtype": str(setup.lm.dtype).removeprefix("torch."),
        "quantization": setup.lm.quantization,
        "bitsandbytes": version("bitsandbytes") if setup.lm.quantization != "none" else None,
        "seed": setup.config.seed,
        "model": setup.config.model,
        "base_fingerprint": fingerprint,
        "run": run_identity(setup.config, fingerprint),
        "trainable_parameters": sum(p.numel() for _, p in setup.lm.adapter_parameters()),
    }
