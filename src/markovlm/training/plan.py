"""What a configuration will do, without doing it: `markovlm train CONFIG --dry-run`. No weights are loaded, nothing is fetched
but a model's config.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from markovlm.chains.prompter import ChainPrompter
from markovlm.checks.ours import doubts
from markovlm.config import RunConfig
from markovlm.errors import UserError
from markovlm.intervals import percent_text
from markovlm.models.load import load_tokenizer
from markovlm.models.registry import check_path, is_here, resolve
from markovlm.rollouts.prompter import Prompter
from markovlm.runs.asking import parts_of, task_of
from markovlm.runs.setup import check_splits, is_endless, load_examples, prompter_of, resolve_config, task_with_extractors
from markovlm.tasks.base import Example, Loaded, Task
from markovlm.tasks.mixture import under_its_name
from markovlm.training.cards import CONTEXT, FRAGMENTATION, HEAP, PROCESS, advise, fits, needed, on_gpu, resident
from markovlm.training.estimate import Spread, Workload, element_bytes, estimate, on_cuda
from markovlm.training.shapes import Shape, read_shape, read_weights
from markovlm.training.strategy import check_share

_SAMPLE = 64  # training questions whose prompts are measured
_ASSUMED_PROMPT, _ASSUMED_ANSWER = 256, 8  # tokens, where nothing can be measured
_GPU_NEEDS = f"with {CONTEXT / 1e9:.1f} GB for CUDA's context and {percent_text(FRAGMENTATION)} for fragmentation"
_CPU_NEEDS = f"with {PROCESS / 1e9:.2g} GB for Python's libraries, what sampling leaves in the heap, and {percent_text(HEAP)} for holes in it"


def plan(config: RunConfig, processes: int = 1) -> dict[str, Any]:
    """A JSON object: task, splits, steps, tokens per step, a memory estimate for each of `processes`. Raises UserError for what could
    not run.
    """
    spread = _spread(config, processes)
    check_splits(config)
    check_path(config.model)
    task = task_with_extractors(config)
    tokenizer = _tokenizer(config)
    by_task = {name: _splits(part, task_of(part), tokenizer) for name, part in parts_of(config).items()}
    if config.tasks:
        loaded = {f"{name} {split}": found for name, (splits, _) in by_task.items() for split, found in splits.items()}
        note = "; ".join(f"{name}: {note}" for name, (_, note) in by_task.items())
    else:
        ((loaded, note),) = by_task.values()
    cot = config.chain.state_tokens or config.rollouts.max_cot_tokens or task.default_cot_tokens
    train = _asked(config, by_task)
    longest, mean = _workloads(config, task, tokenizer, cot, train)
    training, rollouts = config.training, config.rollouts
    size = None if train is None or config.tasks or is_endless(train.examples) else len(train.examples)
    sizes = {name: None if is_endless(part.examples) else len(part.examples) for name, part in loaded.items()}
    dev = sizes.get(config.data.dev_split)
    return {
        "task": config.task,
        "model": config.model,
        "objective": config.objective.name,
        "conditioning": config.objective.conditioning,
        "reader": config.objective.reader,
        "actor_reward_weight": str(config.objective.actor_reward_weight),
        "splits": sizes,
        "splits_note": note,
        "skipped": sum(len(part.skipped) for part in loaded.values()),
        "notes": list(dict.fromkeys(line for part in loaded.values() for line in part.notes)),
        "steps": training.steps,
        "epochs": None if size is None else training.steps * rollouts.questions_per_step / size,
        "questions_per_step": rollouts.questions_per_step,
        "group_size": rollouts.group_size,
        "max_cot_tokens": cot,
        "evaluations": _times(training.steps, training.eval_every),
        "evaluation_questions": min(config.evaluation.dev_size, dev) if dev is not None else config.evaluation.dev_size,
        "checkpoints": _times(training.steps, training.checkpoint_every),
        "health_policy": config.health.policy,
        "prompt_tokens": {"mean": mean.prompt, "longest": longest.prompt, "source": mean.source},
        "chain": _chain(config, task, tokenizer, loaded.get(config.data.train_split)),
        "tokens_per_step": tokens_per_step(config, mean),
        "memory": _memory(config, longest, spread),
        "doubts": doubts(config),
    }


def _asked(config: RunConfig, by_task: dict[str, tuple[dict[str, Loaded], str]]) -> Loaded | None:
    """Training questions, the first of every task where there are several; None where some are not here."""
    train = {name: splits.get(config.data.train_split) for name, (splits, _) in by_task.items()}
    if not config.tasks:
        return next(iter(train.values()))
    found = {name: loaded for name, loaded in train.items() if loaded is not None}
    few = max(1, _SAMPLE // len(train))
    examples = [
        one
        for name, loaded in found.items()
        for one in under_its_name(name, [loaded.examples[i] for i in range(min(few, len(loaded.examples)))])
    ]
    return Loaded(examples) if len(found) == len(train) else None


def tokens_per_step(config: RunConfig, work: Workload) -> dict[str, int]:
    """Upper bounds, as if every CoT used its budget: sampled, scored with gradient, and scored without."""
    questions, samples = config.rollouts.questions_per_step, config.rollouts.questions_per_step * config.rollouts.group_size
    live = config.objective.actor_reward_weight.maximum > 0
    cot_pass = questions * work.prompt + samples * work.cot
    answer_pass = work.reader_prompt + samples * (work.cot + work.answer)
    with_gradient = cot_pass + (answer_pass if live else 0)
    without = cot_pass + (0 if live else answer_pass)  # the frozen model's pass for the KL
    sampled = samples * work.cot
    prompts = questions * work.prompt
    return {
        "sampled": sampled,
        "prompts": prompts,
        "scored_with_gradient": with_gradient,
        "scored_without_gradient": without,
        "total": sampled + prompts + with_gradient + without,
    }


def _times(steps: int, every: int) -> int:
    """At step 0, every so many steps, and at the end; 0 for never."""
    return 0 if every == 0 else 1 + steps // every + (steps % every > 0)


def _tokenizer(config: RunConfig) -> Any:
    """The model's, where it is on this machine; else None. UserError for a local model whose tokenizer training could not load either."""
    from transformers import AutoTokenizer

    if not is_here(config.model):
        return None
    source = resolve(config.model)
    if Path(source).is_dir():
        return load_tokenizer(config.model, config.loading)
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=config.loading.trust_remote_code)
    except (OSError, ValueError, ImportError):
        return None


def _splits(config: RunConfig, task: Task, tokenizer: Any) -> tuple[dict[str, Loaded], str]:
    """The splits that can be read here; the training split must be among them unless it is on the Hub."""
    if config.data.path is None and (config.data.hub or task.hub is not None):
        hub = config.data.hub or (task.hub.path if task.hub is not None else "")
        return {}, f"from the Hub ({hub}): not read in a dry run"
    data = config.data
    loaded = {data.train_split: load_examples(config, task, data.train_split, tokenizer=tokenizer)}
    for split in dict.fromkeys((data.dev_split, data.test_split)):
        try:
            loaded[split] = load_examples(config, task, split, tokenizer=tokenizer)
        except UserError:
            if split == data.dev_split and config.training.eval_every:
                raise
    return loaded, str(Path(data.path)) if data.path else "generated"


def workload_of(prompter: Prompter, config: RunConfig, examples: Sequence[Example]) -> Workload:
    """The longest parts that a resolved configuration has over these questions."""
    cot, conditioning = config.rollouts.max_cot_tokens or 0, config.objective.conditioning
    prompt, reader, answer, header = map(max, zip(*(_lengths(prompter, one, conditioning) for one in examples), strict=True))
    return Workload(prompt, reader, cot, answer, "measured", header)


def _workloads(config: RunConfig, task: Task, tokenizer: Any, cot: int, train: Loaded | None) -> tuple[Workload, Workload]:
    """Longest and mean lengths of the first training questions; assumed where they or the tokenizer are not here."""
    if train is None:
        assumed = Workload(
            _ASSUMED_PROMPT, _ASSUMED_PROMPT // 4, cot, _ASSUMED_ANSWER, "assumed: the data is not on this machine"
        )
        return assumed, assumed
    examples = [train.examples[i] for i in range(min(_SAMPLE, len(train.examples)))]
    if tokenizer is None:
        lengths = [(len(e.question) // 4 + 60, 40, len(e.answer) // 4 + 3, 2) for e in examples]
        source = f"guessed from the characters of {len(examples)} questions: the tokenizer is not on this machine"
    else:
        prompter = prompter_of(resolve_config(config, task, tokenizer), task, tokenizer)
        lengths = [_lengths(prompter, example, config.objective.conditioning) for example in examples]
        source = f"measured on {len(examples)} questions"
    columns: Sequence[tuple[int, ...]] = list(zip(*lengths, strict=True))
    longest, mean = [max(column) for column in columns], [round(fmean(column)) for column in columns]
    at_most, usual = (Workload(prompt, reader, cot, answer, source, header) for prompt, reader, answer, header in (longest, mean))
    return at_most, usual


def _chain(config: RunConfig, task: Task, tokenizer: Any, train: Loaded | None) -> dict[str, Any] | None:
    """Of chains: the kind, and how many states a text has (`tokens_per_step` and the memory are those of one state of each chain)."""
    if not config.chain.on:
        return None
    states = None
    if train is not None and tokenizer is not None:
        prompter = prompter_of(resolve_config(config, task, tokenizer), task, tokenizer)
        assert isinstance(prompter, ChainPrompter)
        states = fmean(prompter.text_of(train.examples[i]).states for i in range(min(_SAMPLE, len(train.examples))))
    return {"kind": config.chain.kind, "predicts": config.chain.predicts, "states": states or config.chain.steps}


def _lengths(prompter: Prompter, example: Example, conditioning: str) -> tuple[int, int, int, int]:
    header = 0 if isinstance(prompter, ChainPrompter) else len(prompter.header_ids)  # there it is part of what is predicted
    answer = header + len(prompter.target_ids(example))
    return len(prompter.cot_prompt(example)), len(prompter.reader_prompt(example, conditioning)), answer, header


def _spread(config: RunConfig, processes: int) -> Spread:
    """UserError as at the start of such a run."""
    strategy = config.distributed.strategy
    check_share(config, processes)
    if strategy == "fsdp2" and processes == 1:
        raise UserError("distributed.strategy=fsdp2 shards the weights over several processes: add --processes N")
    return Spread(processes, strategy == "fsdp2")


def _memory(config: RunConfig, work: Workload, spread: Spread) -> dict[str, Any]:
    """The estimate with what it rests on, or why there is none."""
    try:
        shape: Shape = read_shape(config)
    except UserError as error:
        if is_here(config.model) and Path(resolve(config.model)).is_dir():
            read_weights(config)  # raises it again where the model can't be trained at all
        return {"estimate": None, "note": str(error)}
    gpu = on_gpu(config)
    there, advice = estimate(gpu, shape, work, spread), advise(gpu, shape, work, spread)
    here, cuda = estimate(config, shape, work, spread), on_cuda(config)
    return {
        "device": "gpu" if cuda else "cpu",  # of "estimate"; "gpu" and "advice" are of a CUDA device wherever this is asked
        "estimate": here.to_json(),
        "needed": needed(here) if cuda else resident(here),
        "processes": spread.processes,
        "dealt": spread.dealt,
        "note": f"tensors by formula, base in {_kind(config)}; sizes from {shape.source}",
        "needed_note": _GPU_NEEDS if cuda else _CPU_NEEDS,
        "parameters": shape.parameters,
        "adapter_parameters": shape.adapter_parameters,
        "gpu": there.to_json(),
        "gpu_note": f"base in {_kind(gpu)}; {_GPU_NEEDS}",
        "gpu_needed": needed(there),
        "cards": fits(there),
        "advice": None if advice is None else asdict(advice),
    }


def _kind(config: RunConfig) -> str:
    size, quantization, dtype = element_bytes(config), config.loading.quantization, config.loading.dtype
    if dtype == "auto":
        dtype = "bfloat16" if on_cuda(config) else "float32"
    return f"{dtype}, {size} bytes a weight" if quantization == "none" else f"{quantization}, computed in {dtype}"
