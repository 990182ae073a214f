"""`markovlm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from markovlm.cli.common import force_flag
from markovlm.cli.flags import EVAL_SECTIONS, Command, config_flags, overrides, print_json
from markovlm.errors import UserError


@click.command("eval", cls=Command, short_help="Accuracy from the CoT alone: of a run, adapters or a model.")
@click.argument("target", metavar="RUN|ADAPTERS|MODEL")
@click.option("--checkpoints", help="last, best, all, base, or steps such as 100,200 [default last]")
@click.option("--baseline", is_flag=True, help="evaluate the base model too, and compare with it question by question")
@click.option("--split", help="split to report on; default data.test_split")
@click.option("--limit", type=int, help="only so many questions")
@click.option("--non-markovian", is_flag=True, help="control: the reader sees the question too")
@click.option("--no-cot", is_flag=True, help="control: answer the question directly, without a CoT")
@click.option(
    "--lengths", help="of a run that reads texts in chunks (chain.kind): numbers of chunks to evaluate at too, such as 4,16,64"
)
@click.option("--rescore", is_flag=True, help="read kept answers again with the extractors as they are now; generates nothing")
@click.option("--difference", type=float, default=0.05, help="of accuracy; warns where n is too small to show it [default 0.05]")
@click.option("--out", type=click.Path(path_type=Path), help="where readings go; default RUN/evaluations or runs/evaluations/…")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@force_flag
@config_flags(*EVAL_SECTIONS)
def evaluate(
    target: str, checkpoints: str | None, baseline: bool, split: str | None, limit: int | None, non_markovian: bool, no_cot: bool,
    lengths: str | None, rescore: bool, difference: float, out: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Accuracy from the CoT alone: of checkpoints of a run, of a directory of PEFT adapters, or of a plain model."""
    from markovlm.api import evaluation as api
    from markovlm.terminal.chains import show_chains
    from markovlm.terminal.console import counting, stderr
    from markovlm.terminal.evaluation import show_evaluation

    console = stderr()
    config = overrides(flags)
    tasks = () if rescore else api.trained_tasks(target, config)  # of a run on several tasks: each for itself
    reports: dict[str, Any] = {}
    for task in tasks or (None,):
        done = api.evaluate(
            target,
            checkpoints=checkpoints,
            baseline=baseline,
            split=split,
            limit=limit,
            non_markovian=non_markovian,
            no_cot=no_cot,
            lengths=_lengths(lengths),
            rescore=rescore,
            difference=difference,
            out=out,
            config=config if task is None else {**config, "task": task},
            counting=lambda label, n, task=task: counting(console, label if task is None else f"{task}: {label}", n),
        )
        reports[task or ""] = done.report
        if as_json:
            continue
        if done.report.get("kind") == "chains":
            show_chains(done.report, str(done.store))
        else:
            show_evaluation(done.report, str(done.store))
    if as_json:
        print_json({"tasks": reports} if tasks else reports[""])


def _lengths(given: str | None) -> tuple[int, ...]:
    words = [word.strip() for word in (given or "").split(",") if word.strip()]
    if any(not word.isdecimal() or int(word) < 2 for word in words):
        raise UserError(f"--lengths {given}: numbers of chunks, each at least 2, are needed, such as 4,16,64")
    return tuple(int(word) for word in words)
