"""`markovlm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from markovlm.cli.common import force_flag
from markovlm.cli.flags import EVAL_SECTIONS, Command, config_flags, overrides, print_json
from markovlm.errors import UserError


@click.command("eval", cls=Command, short_help="Measure accuracy from the CoT alone, for a run, adapters or a model.")
@click.argument("target", metavar="RUN|ADAPTERS|MODEL")
@click.option("--checkpoints", help="last, best, all, base, or steps such as 100,200 [default last]")
@click.option("--baseline", is_flag=True, help="also evaluate the base model, and compare with it question by question")
@click.option("--split", help="split to evaluate on [default data.test_split]")
@click.option("--limit", type=int, help="evaluate at most this many questions")
@click.option("--non-markovian", is_flag=True, help="control: the reader also sees the question")
@click.option("--no-cot", is_flag=True, help="control: answer the question directly, without a CoT")
@click.option(
    "--lengths",
    help="for a run that reads texts in chunks (chain.kind): also evaluate at these numbers of chunks, such as 4,16,64",
)
@click.option(
    "--rescore", is_flag=True, help="apply the current extractors to the replies of kept evaluations; generates nothing"
)
@click.option(
    "--difference",
    type=float,
    default=0.05,
    help="accuracy difference that you want to detect; warns if n is too small for it [default 0.05]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="directory for evaluations [default RUN/evaluations or runs/evaluations/…]"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@force_flag
@config_flags(*EVAL_SECTIONS)
def evaluate(
    target: str, checkpoints: str | None, baseline: bool, split: str | None, limit: int | None, non_markovian: bool, no_cot: bool,
    lengths: str | None, rescore: bool, difference: float, out: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Measure accuracy from the CoT alone, for checkpoints of a run, a directory of PEFT adapters, or a plain model."""
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
