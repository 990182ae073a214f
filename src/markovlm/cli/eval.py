"""`markovlm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from markovlm.cli.flags import EVAL_SECTIONS, config_flags, default_store, overrides, print_json
from markovlm.errors import UserError
from markovlm.models.registry import KNOWN
from markovlm.tasks import task_names


@click.command("eval")
@click.argument("target", metavar="RUN|ADAPTERS|MODEL")
@click.option("--checkpoints", help="last, best, all, base, or steps such as 100,200 [default last]")
@click.option("--baseline", is_flag=True, help="evaluate the base model too, and compare with it question by question")
@click.option("--split", help="split to report on; default data.test_split")
@click.option("--limit", type=int, help="only so many questions")
@click.option("--non-markovian", is_flag=True, help="control: the reader sees the question too")
@click.option("--no-cot", is_flag=True, help="control: answer the question directly, without a CoT")
@click.option("--rescore", is_flag=True, help="read kept answers again with the extractors as they are now; generates nothing")
@click.option("--difference", type=float, default=0.05, help="of accuracy; warns where n is too small to show it [default 0.05]")
@click.option("--out", type=click.Path(path_type=Path), help="where readings go; default RUN/evaluations or runs/evaluations/…")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@config_flags(*EVAL_SECTIONS)
def evaluate(
    target: str, checkpoints: str | None, baseline: bool, split: str | None, limit: int | None, non_markovian: bool, no_cot: bool,
    rescore: bool, difference: float, out: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Accuracy from the CoT alone: of checkpoints of a run, of a directory of PEFT adapters, or of a plain model."""
    from markovlm.evaluation.report import choose, evaluation_report
    from markovlm.evaluation.run import Control
    from markovlm.runs.targets import open_targets
    from markovlm.terminal.evaluation import show_evaluation

    _check_eval_flags(limit, difference, rescore, non_markovian or no_cot, out)
    over = overrides(flags)
    # with --rescore everything that is kept, unless checkpoints are named
    wanted = checkpoints or ("all" if rescore else "last")
    targets = open_targets(target, f"{wanted},base" if baseline else wanted, over)
    targets.sort(key=lambda t: -1 if t.step is None else t.step)
    config, run = targets[0].config, targets[0].run
    if run is None and "task" not in over and config.model not in KNOWN and not rescore:
        raise UserError(f"--task: {target} is no run of markovlm, so say which task; one of {', '.join(task_names())}")
    split = split or config.data.test_split
    store = out or (run.path / "evaluations" if run else default_store(target, config.task))
    if rescore:
        results = _rescored(store, split, targets, bool(checkpoints))
    else:
        results = _evaluated(targets, split, limit or config.evaluation.test_size, Control(non_markovian, no_cot), store)
    report = evaluation_report(config, results, choose(targets[-1], results, config.seed), difference)
    print_json(report) if as_json else show_evaluation(report, str(store))


def _check_eval_flags(limit: int | None, difference: float, rescore: bool, control: bool, out: Path | None) -> None:
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: must be at least 1")
    if not 0 < difference < 0.5:
        raise UserError(f"--difference {difference}: must be between 0 and 0.5, a difference of accuracy such as 0.05")
    if rescore and (limit is not None or control):
        raise UserError("--rescore reads kept answers of every kind again; leave --limit, --non-markovian and --no-cot out")
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a directory")


def _evaluated(targets: Any, split: str, limit: int | None, control: Any, store: Path) -> Any:
    from markovlm.evaluation.run import evaluate_targets
    from markovlm.terminal.console import counting, stderr

    console = stderr()
    bar = lambda label, n: counting(console, label, n)  # noqa: E731
    return evaluate_targets(targets, split, limit, control, store, bar, choose=True)


def _rescored(store: Path, split: str, targets: Any, only_these: bool) -> Any:
    from markovlm.evaluation.run import rescore_targets

    names = [target.checkpoint for target in targets] if only_these else None
    return rescore_targets(store, split, names, targets[0].run, targets[0].config.data.dev_split)
