"""The command line: parse, build a config, call, print. Nothing is computed here, and torch is imported only to compute."""

from __future__ import annotations

import errno
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from markovlm import __version__
from markovlm.config import build_config, flatten, load_yaml
from markovlm.errors import MarkovlmError, PeerLost, UserError
from markovlm.flags import EVAL_SECTIONS, config_flags, default_store, overrides, print_json, task_option_flags
from markovlm.models.registry import KNOWN
from markovlm.studies import STUDIES
from markovlm.tasks import task_names

_GRACE = 3.0  # seconds in which the main process says the same and torchrun ends this one; if it doesn't, nobody else knew


# ------------------------------------------------------------------------------------------------------- commands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="markovlm")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train language models whose chain of thought carries the whole answer, and measure that it does."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and context.invoked_subcommand != "train":  # they would write the same files
        raise UserError(
            f"{context.invoked_subcommand}: runs in one process, and torchrun started {processes}; only train takes several"
        )


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), help="run directory; default runs/demo-…")
@click.option("--seed", default="0", help="of everything random [default 0]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.option("--device", default="auto", help="cpu, cuda or auto")
def demo(out: Path | None, seed: str, as_json: bool, device: str) -> None:
    """The whole method in about a minute and a half: evaluate the embedded model, train it, evaluate again, study its CoTs."""
    from markovlm.console import counting, stderr, training_progress
    from markovlm.demo import demo as run_demo

    config = build_config(
        _defaults("embedded"), {"model": "embedded", "seed": seed, "loading": {"device": device}}, source="demo"
    )
    console = stderr()
    with training_progress(console) as progress:
        result = run_demo(config, out or new_run_directory("demo"), progress, lambda label, n: counting(console, label, n))
    if as_json:
        print_json(result.to_json())
    else:
        from markovlm.show import show_demo

        show_demo(result)


@cli.command()
@click.argument("config_file", metavar="[CONFIG.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--config", "config_option", type=click.Path(path_type=Path), help="the same as the argument")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="continue a run from its last checkpoint")
@click.option("--out", type=click.Path(path_type=Path), help="run directory; default runs/TASK-DATE-TIME-XXXX")
@click.option("--dry-run", is_flag=True, help="say what would be done, tokens a step and an estimate of memory; load no weights")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object at the end")
@config_flags()
def train(
    config_file: Path | None, config_option: Path | None, resume: Path | None, out: Path | None, dry_run: bool, as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Train a model. Every configuration key is a flag; flags win over the file, the file over a model's defaults."""
    from markovlm.console import stderr, training_progress
    from markovlm.training.loop import resumed_config
    from markovlm.training.loop import train as run_training

    over = overrides(flags)
    file = config_file or config_option
    if resume is not None:
        if file is not None or out is not None:
            raise UserError("--resume takes the configuration and the place of the run itself; leave CONFIG.yaml and --out out")
        config, directory = resumed_config(resume, over), resume
    else:
        layer = load_yaml(file) if file else {}
        model = over.get("model", layer.get("model", "embedded"))
        config = build_config(_defaults(str(model)), layer, over, source=str(file) if file else "train")
        directory = out or new_run_directory(config.task)
    if dry_run:
        _show_plan(config, as_json)
        return
    with training_progress(stderr()) as progress:
        result = run_training(config, directory, resume=resume is not None, progress=progress)
    if _rank():
        return  # the main process speaks
    if as_json:
        print_json(
            {
                "run": str(result.run),
                "steps": result.steps,
                "seconds": result.seconds,
                "best_step": result.best_step,
                "interrupted": result.interrupted,
            }
        )
    elif result.steps:
        verb = "interrupted; continue with: markovlm train --resume" if result.interrupted else "done:"
        click.echo(f"{verb} {result.run}")
        if not result.interrupted:
            click.echo(f"evaluate it with: markovlm eval {result.run} --checkpoints all --baseline")


def _show_plan(config: Any, as_json: bool) -> None:
    from markovlm.show import show_plan
    from markovlm.training.plan import plan

    found = plan(config)
    print_json(found) if as_json else show_plan(found)


@cli.command("eval")
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
    from markovlm.evaluation.run import Control, open_targets
    from markovlm.evaluation.table import show_evaluation

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
    from markovlm.console import counting, stderr
    from markovlm.evaluation.run import evaluate_targets

    console = stderr()
    bar = lambda label, n: counting(console, label, n)  # noqa: E731
    return evaluate_targets(targets, split, limit, control, store, bar, choose=True)


def _rescored(store: Path, split: str, targets: Any, only_these: bool) -> Any:
    from markovlm.evaluation.run import rescore_targets

    names = [target.checkpoint for target in targets] if only_these else None
    return rescore_targets(store, split, names, targets[0].run, targets[0].config.data.dev_split)


@cli.command()
@click.argument("target", metavar="RUN|MODEL")
@click.argument("question")
@click.option("--checkpoint", default="last", help="last, best, base or a step [default last]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@config_flags(*EVAL_SECTIONS)
def ask(target: str, question: str, checkpoint: str, as_json: bool, **flags: Any) -> None:
    """One CoT, and the answer read from it alone."""
    from dataclasses import asdict

    from markovlm.ask import ask as ask_model
    from markovlm.evaluation.run import open_targets
    from markovlm.show import show_asked

    picked = open_targets(target, checkpoint, overrides(flags))[0]
    result = ask_model(picked.prepare(), question)
    if as_json:
        print_json({"checkpoint": picked.checkpoint, **asdict(result)})
    else:
        show_asked(picked.checkpoint, result)


@cli.command()
@click.argument("run")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="new directory")
@click.option("--merge", is_flag=True, help="write the base model with the adapter merged in, instead of the adapter")
@click.option("--checkpoint", default="last", help="last, best or a step [default last]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def export(run: str, to: Path, merge: bool, checkpoint: str, as_json: bool) -> None:
    """The trained adapter (or merged model) as a directory that transformers and PEFT load, with a model card."""
    from markovlm.evaluation.run import open_targets
    from markovlm.export import export as write_export

    target = open_targets(run, checkpoint, {})[0]
    written = write_export(target, to, merge)
    if as_json:
        print_json({"path": str(written), "checkpoint": target.checkpoint, "merged": merge})
    else:
        click.echo(f"{target.checkpoint} of {run} written to {written}")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def models(as_json: bool) -> None:
    """Models known by name, and their defaults. Any causal LM works by path or Hub id."""
    from markovlm.models.registry import KNOWN, SUGGESTED
    from markovlm.show import show_models

    if as_json:
        known = [{"name": m.name, "summary": m.summary, "defaults": flatten(m.defaults)} for m in KNOWN.values()]
        print_json({"embedded": known, "suggested": [{"name": name, "summary": text} for name, text in SUGGESTED.items()]})
    else:
        show_models()


@cli.command()
@click.argument("name", required=False)
@click.option("--split", default="test", help="split to preview [default test]")
@click.option("--limit", type=int, default=3, help="examples to show [default 3]")
@click.option(
    "--style",
    type=click.Choice(["plain", "chat", "compact"]),
    help="prompt style shown [default plain, or that of --model]",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@config_flags("data", "task_options", "seed", "model")
def tasks(name: str | None, split: str, limit: int, style: str | None, as_json: bool, **flags: Any) -> None:
    """The tasks; with NAME a preview of its parsed examples and exact prompts."""
    from markovlm.show import preview_task, show_preview, show_tasks, tasks_json

    if name is None:
        print_json(tasks_json()) if as_json else show_tasks()
        return
    over = overrides(flags)
    config = build_config({"task": name}, over, source="tasks")
    preview = preview_task(config, split, limit, style, model=over.get("model"))
    print_json(preview.to_json()) if as_json else show_preview(preview)


@cli.command()
@click.argument("paths", metavar="RUN|LOG ...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def diagnose(paths: tuple[str, ...], as_json: bool) -> int:
    """A verdict for each run or log, since when, why, and what to change. Exit 3 if any collapsed."""
    from markovlm.report.diagnose import diagnose_paths
    from markovlm.report.terminal import show_diagnoses

    found = diagnose_paths(paths)
    if as_json:
        print_json({"runs": [diagnosis.as_json() for diagnosis in found]})
    else:
        show_diagnoses(found)
    return 3 if any(diagnosis.verdict == "collapsed" for diagnosis in found) else 0


@cli.command()
@click.argument("paths", metavar="RUN|LOG|DIR ...", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="directory for report.html, report.md and tables"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def report(paths: tuple[str, ...], out: Path, as_json: bool) -> None:
    """One report on any pile of runs and logs, ours or the research code's."""
    from markovlm.report import write_report

    written = write_report(paths, out)
    if as_json:
        print_json(written.as_json())
    else:
        click.echo(f"{written.html}  ({written.runs} runs, {written.steps} steps, {written.seconds:.1f} s)")


for _study in STUDIES:
    cli.add_command(_study)


# --------------------------------------------------------------------------------------------------------- helpers


def _defaults(model: str) -> dict[str, Any]:
    from markovlm.models.registry import model_defaults

    return model_defaults(model)


def new_run_directory(label: str) -> Path:
    """runs/LABEL-DATE-TIME-XXXX"""
    return Path("runs") / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 the work failed, 2 bad input, 3 a verdict that says stop, 130 interrupted at once."""
    try:
        code = cli.main(
            args=task_option_flags(sys.argv[1:] if arguments is None else arguments), prog_name="markovlm", standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return _complain("interrupted", 130)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "markovlm"
        return _complain(f"{' '.join(error.format_message().split())} (see `{where} --help`)", 2)
    except MarkovlmError as error:
        return _complain(str(error), error.exit_code, own=error.exit_code == 1 and not isinstance(error, PeerLost))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            return _complain(f"{error.filename or 'writing'}: {error.strerror}", 1)
        raise


def _complain(message: str, code: int, own: bool = False) -> int:
    """One line. Of several processes the main one says what all have to say, each what is its `own`."""
    if _rank() and not own:
        time.sleep(_GRACE)
    name = f"markovlm (process {_rank()})" if _rank() else "markovlm"
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    return code


def _rank() -> int:
    """Of this process, as torchrun numbers them."""
    return int(os.environ.get("RANK", "0"))


def entry() -> None:
    """Console script."""
    sys.exit(main())
