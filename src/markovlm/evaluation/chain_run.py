"""`markovlm eval` for a run with chains: checkpoints on the same texts with every control, and at other lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markovlm.chains.controls import CONTROLS
from markovlm.chains.prompter import chain_prompter_of
from markovlm.config import RunConfig, build_config, merge
from markovlm.errors import UserError
from markovlm.evaluation.chain_store import ChainReadings
from markovlm.evaluation.chains import ChainEvaluation, evaluate_chains
from markovlm.evaluation.evaluate import How, how_evaluated
from markovlm.evaluation.run import Control, Counting, keeping, label_of, prepared, record, warnings_of
from markovlm.runs.rows import clean
from markovlm.runs.setup import Setup
from markovlm.runs.targets import BASE, Target
from markovlm.tasks import task_options
from markovlm.tasks.base import Example

LENGTH_LIMIT = 50  # texts at each length, where no limit is given


@dataclass(frozen=True, slots=True)
class ChainResult:
    """One checkpoint at one length."""

    checkpoint: str
    step: int
    steps: int | None  # chunks that were asked for; None: those of the run
    evaluation: ChainEvaluation
    notes: tuple[str, ...] = ()


def evaluate_chain_targets(
    targets: Sequence[Target],
    split: str,
    limit: int | None,
    store: Path,
    counting: Counting | None = None,
    *,
    non_markovian: bool = False,
    lengths: Sequence[int] = (),
) -> list[ChainResult]:
    """Evaluate every target on the same texts, and at each of `lengths` without controls.

    Results are kept under `store`, batch by batch, in one file per checkpoint and length: an interrupted evaluation continues.
    """
    results: list[ChainResult] = []
    wanted = [(None, targets), *((length, [at_length(target, length) for target in targets]) for length in sorted(lengths))]
    for steps, some in wanted:
        for target, setup in prepared(some):
            size = limit if steps is None else limit or LENGTH_LIMIT
            loaded = target.load(setup, split, size)
            how = Control(non_markovian).apply(how_evaluated(setup.config, setup.prompter))
            controls = [c for c in CONTROLS if not (c == "frozen" and target.adapter is None)] if steps is None else []
            doing = f"{target.checkpoint} on {split}" + ("" if steps is None else f", {steps} chunks")
            examples = list(loaded.examples)
            done = _evaluate_one(target, setup, examples, split, how, controls, store, doing, counting)
            notes = (*loaded.notes, *(warnings_of(target, examples, split) if steps is None else ()))
            results.append(ChainResult(target.checkpoint, target.step or 0, steps, done, notes))
            if target.run is not None and steps is None:
                record(target, split, done.summary())
    return results


def _evaluate_one(
    target: Target,
    setup: Setup,
    examples: list[Example],
    split: str,
    how: How,
    controls: Sequence[str],
    store: Path,
    doing: str,
    counting: Counting | None,
) -> ChainEvaluation:
    """Evaluate the batches that are not kept yet."""
    prompter, size = chain_prompter_of(setup.prompter), setup.config.evaluation.batch_size
    texts = [prompter.text_of(example) for example in examples]
    extractor = next(iter(setup.task.extractors), None)
    kept = ChainReadings(store, label_of(target, setup, split, how), setup.config.chain, controls, size, texts, extractor)
    known = kept.known()
    with keeping(counting, doing, len(examples), sum(map(len, known.values())), kept.add) as keep:
        return evaluate_chains(
            setup.lm, setup.sampler(), prompter, examples, how, controls=controls, batch_size=size, known=known, on_batch=keep
        )


def at_length(target: Target, steps: int) -> Target:
    """The same weights on texts of `steps` chunks."""
    if steps < 2:
        raise UserError(f"--lengths {steps}: must be at least 2 chunks")
    config = target.config
    options: dict[str, Any] = {"chain": {"steps": steps}}
    known = task_options(config.task)
    if "chunks" in known:
        options["task_options"] = {"chunks": steps, **({"min_chunks": None} if "min_chunks" in known else {})}
    if {"context_tokens", "target_tokens"} <= set(known):
        size = config.chain.chunk_tokens or 0
        options["task_options"] = {"context_tokens": size * (steps - 1), "target_tokens": size}
    longer: RunConfig = build_config(merge(config.model_dump(mode="json"), options))
    return replace(target, config=longer, trained=target.trained or config)


def chain_report(config: RunConfig, split: str, results: Sequence[ChainResult]) -> dict[str, Any]:
    """One JSON object: `results` (a row per checkpoint, with controls) and `lengths` (a row per checkpoint and length)."""
    full = [result for result in results if result.steps is None]
    rows = [{"checkpoint": r.checkpoint, "step": _step(r), **r.evaluation.report()} for r in full]
    lengths = [
        {
            "checkpoint": r.checkpoint,
            "step": _step(r),
            "chunks": r.steps,
            **{k: v for k, v in r.evaluation.report().items() if k not in ("predicted", "how")},
            "by_distance": r.evaluation.report()["predicted"].get("answer", {}).get("own", {}).get("by_distance", []),
            "seconds_per_text": r.evaluation.seconds / max(len(r.evaluation.traces), 1),
        }
        for r in results
        if r.steps is not None
    ]
    return clean(
        {
            "kind": "chains",
            "chain": config.chain.model_dump(mode="json"),
            "task": config.task,
            "task_options": dict(config.task_options),
            "model": config.model,
            "split": split,
            "results": rows,
            "lengths": lengths,
            "notes": list(dict.fromkeys(note for r in results for note in r.notes)),
        }
    )


def _step(result: ChainResult) -> int | None:
    return None if result.checkpoint == BASE else result.step
