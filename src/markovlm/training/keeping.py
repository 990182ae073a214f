"""What a run keeps on the way: dev evaluations, checkpoints, and rollbacks to a healthy one."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

from markovlm.chains.prompter import chain_prompter_of
from markovlm.errors import StopVerdict
from markovlm.evaluation.chains import ChainEvaluation, evaluate_chains
from markovlm.evaluation.evaluate import Evaluation, How, evaluate, how_evaluated, pooled
from markovlm.health.evaluations import independent
from markovlm.rollouts.prompter import Prompter
from markovlm.runs.checkpoint import drop_checkpoint, load_adapter, save_checkpoint, update_state
from markovlm.runs.manifest import is_whole
from markovlm.tasks.base import Example
from markovlm.tasks.mixture import Mixture
from markovlm.training.start import load_trainer_state, trainer_state
from markovlm.training.state import Run, note_event, warn


def keeps_checkpoint(run: Run, step: int) -> bool:
    """Whether `step` gets a checkpoint."""
    return step % run.config.training.checkpoint_every == 0 or step == run.config.training.steps


def judge_row(run: Run, row: dict[str, Any]) -> bool:
    """Show a row to the guard. True if it rolled the run back; raises StopVerdict if it ends the run."""
    return _act(run, run.guard.see(row))


def _act(run: Run, changed: bool) -> bool:
    """Note a verdict that changed, and do what `health.policy` says."""
    guard = run.guard
    if changed:
        assert guard.verdict is not None
        evidence = [asdict(signal) for signal in guard.verdict.signals]
        note_event(run, "verdict", guard.verdict.describe(), verdict=guard.verdict.verdict, signals=evidence)
        run.progress.note(f"health: {guard.verdict.describe()}")
    if not guard.collapsed or guard.config.policy == "warn":
        return False
    assert guard.verdict is not None
    saved = [step for step in run.directory.saved_steps() if step not in run.interim]
    target = _way_back(run, saved)
    if target is not None:
        _roll_back(run, target)
        return True
    checkpoint(run)
    good = guard.last_healthy(saved)
    healthy = "no checkpoint was healthy" if good is None else f"the last healthy checkpoint is step {good}"
    message = f"{run.directory.path}: stopped by health.policy={guard.config.policy}: {guard.verdict.describe()}; {healthy}"
    note_event(run, "stopped", message)
    raise StopVerdict(message)


def _way_back(run: Run, saved: list[int]) -> int | None:
    """Where a rollback goes: to a checkpoint that is whole. Damaged ones are taken out of `saved`."""
    while (target := run.guard.way_back(saved)) is not None:
        if run.learner.world.broadcast(is_whole(run.directory.checkpoint(target), training=True)):
            return target
        warn(run, f"{run.directory.checkpoint(target).name} is damaged and can't be rolled back to")
        saved.remove(target)
    return None


def _roll_back(run: Run, target: int) -> None:
    """Return to the checkpoint `target` at half the learning rate; what came after it is put aside, not lost."""
    collapsed_at, verdict = run.step, run.guard.verdict
    rollbacks, evaluations = run.guard.rollbacks + 1, list(run.guard.monitor.evaluations.rows)
    scale, attempt = run.learner.lr_scale / 2, run.learner.attempt + 1
    interim = sorted(run.interim)
    checkpoint = run.directory.checkpoint(target)
    load_adapter(run.setup.lm, checkpoint, training=True)
    load_trainer_state(run, checkpoint)
    run.learner.world.gather([None])  # every process has read the checkpoint before it is changed
    run.guard.begin_anew(target, evaluations)
    run.guard.rollbacks, run.learner.lr_scale, run.learner.attempt = rollbacks, scale, attempt
    run.step = target
    if run.main:
        update_state(checkpoint, trainer_state(run))  # first: a kill from here on resumes after the rollback, or repeats it
        for step in interim:
            drop_checkpoint(run.directory, step)
        run.directory.put_aside(target, rollbacks)
    message = f"from step {collapsed_at} back to step {target}, learning rate times {scale:g} ({rollbacks} of {run.config.health.max_rollbacks})"
    note_event(run, "rollback", message, from_step=collapsed_at, lr_scale=scale, reason=verdict.describe() if verdict else "")
    run.progress.note(f"rollback: {message}")


def judge_evaluation(run: Run) -> bool:
    """Evaluate on dev and show the result to the guard; returns and raises as `judge_row`."""
    return _act(run, evaluate_dev(run))


def evaluate_dev(run: Run) -> bool:
    """Dev accuracy of the current policy, with questions distributed over the processes; a new best is recorded. True if the guard's
    verdict changed.
    """
    if not run.dev:
        return False
    began = time.perf_counter()
    config = run.config
    how = how_evaluated(config, run.setup.prompter, step=run.step)
    rows = [_dev_row(run, _chains_on_dev(run, how))] if config.chain.on else _dev_rows(run, _questions_on_dev(run, how))
    row = rows[-1]
    changed = run.guard.evaluated(run.step, row["accuracy"], independent(row["n"], row.get("texts")))
    if not run.main:
        return changed
    row["evaluation_seconds"] = time.perf_counter() - began
    run.directory.append("evals.jsonl", rows)
    if run.trackers is not None:
        run.trackers.log({"dev_accuracy": row["accuracy"], "dev_logprob": row["logprob"]}, step=run.step)
    # accuracy decides; for text answers, and between equals, the log-likelihood does
    score = [row["accuracy"] or 0.0, row["logprob"]]
    if keeps_checkpoint(run, run.step) and (run.best is None or score > run.best["score"]):  # the best *checkpoint*
        run.best = {"step": run.step, "score": score, "accuracy": row["accuracy"], "logprob": row["logprob"]}
        accuracy = "" if row["accuracy"] is None else f"accuracy {row['accuracy']:.3f}, "
        message = f"{config.data.dev_split} {accuracy}answer log-likelihood {score[1]:.3f} (n={row['n']})"
        note_event(run, "best", message, accuracy=row["accuracy"], logprob=row["logprob"])
    run.progress.evaluation(row)
    return changed


def _questions_on_dev(run: Run, how: How) -> dict[str, Evaluation]:
    """Of each task by itself."""
    world, size = run.learner.world, run.config.evaluation.batch_size
    done: dict[str, Evaluation] = {}
    for name, (prompter, questions) in _by_task(run).items():
        mine = evaluate(run.setup.lm, run.evaluator, prompter, world.share(questions), how, batch_size=size)
        done[name] = Evaluation(world.gather(mine.readings), how, mine.extractors)
    return done


def _chains_on_dev(run: Run, how: How) -> ChainEvaluation:
    world, size = run.learner.world, run.config.evaluation.batch_size
    prompter = chain_prompter_of(run.setup.prompter)
    mine = evaluate_chains(run.setup.lm, run.evaluator, prompter, world.share(run.dev), how, batch_size=size)
    found = world.gather([(trace, [r for r in mine.readings if r.text == trace.text]) for trace in mine.traces])
    readings = [reading for _, few in found for reading in few]
    return ChainEvaluation(readings, [trace for trace, _ in found], how, mine.seconds, mine.peak_memory)


def _by_task(run: Run) -> dict[str, tuple[Prompter, list[Example]]]:
    """Dev questions of each task with the prompter that asks it alone."""
    prompter = run.setup.prompter
    if not isinstance(prompter.task, Mixture):
        return {prompter.task.name: (prompter, run.dev)}
    asked = {name: [e for e in run.dev if e.id.startswith(f"{name}/")] for name in prompter.task.parts}
    return {name: (replace(prompter, task=task), asked[name]) for name, task in prompter.task.parts.items() if asked[name]}


def _dev_rows(run: Run, done: dict[str, Evaluation]) -> list[dict[str, Any]]:
    """One; of several tasks one each and then one of all, by which the best checkpoint is chosen."""
    rows = [_dev_row(run, one) for one in done.values()]
    if len(done) > 1:
        for row, name in zip(rows, done, strict=True):
            row["how"] = {**row["how"], "task": name}
        rows.append(_dev_row(run, pooled(list(done.values()))))
    return rows


def _dev_row(run: Run, done: Evaluation | ChainEvaluation) -> dict[str, Any]:
    return {
        "step": run.step,
        "role": "dev",
        "split": run.config.data.dev_split,
        "checkpoint": f"step-{run.step:06d}",
        **done.summary(),
    }


def checkpoint(run: Run) -> None:
    """Save the last whole step, unless it is saved. Outside the regular ones, it is kept for resuming until the next."""
    if run.step in run.saved:
        return
    interim = not keeps_checkpoint(run, run.step)
    run.saved.add(run.step)
    if interim:
        run.interim.add(run.step)
    else:
        run.guard.saved(run.step)
    if run.main:
        slow = run.learner.room.slow
        more = (slow.save,) if slow is not None else ()
        lm, optimizer = run.setup.lm, run.learner.optimizer
        path = save_checkpoint(run.directory, run.step, lm, optimizer, trainer_state(run), more, interim=interim)
        note_event(run, "checkpoint", str(path.relative_to(run.directory.path)))
    if not interim:
        _drop_interim(run)


def _drop_interim(run: Run) -> None:
    """Checkpoints that were saved because the run ended there have served: it then has those that an uninterrupted run has."""
    for step in sorted(run.interim):
        if run.main:
            drop_checkpoint(run.directory, step)
            note_event(run, "dropped", f"{run.directory.checkpoint(step).name}, where the run was interrupted")
    run.saved -= run.interim
    run.interim.clear()
