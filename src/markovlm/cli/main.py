"""The command line: parse, build a config, call, print. Nothing is computed here, and torch is imported only to compute."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

from markovlm._version import __version__
from markovlm.cli.ask import ask
from markovlm.cli.audit import audit
from markovlm.cli.check import check
from markovlm.cli.common import rank
from markovlm.cli.configs import configs
from markovlm.cli.demo import demo
from markovlm.cli.diagnose import diagnose
from markovlm.cli.eval import evaluate
from markovlm.cli.explain import explain
from markovlm.cli.export import export
from markovlm.cli.flags import take_plugins, task_option_flags
from markovlm.cli.loadbearing import loadbearing
from markovlm.cli.models import models
from markovlm.cli.perturb import perturb
from markovlm.cli.report import report
from markovlm.cli.sweep import sweep
from markovlm.cli.sweep_cell import sweep_cell
from markovlm.cli.tasks import tasks
from markovlm.cli.train import train
from markovlm.cli.transfer import transfer
from markovlm.cli.watch import watch
from markovlm.errors import MarkovlmError, Note, PeerLost, UserError
from markovlm.plugins import load_plugin
from markovlm.registry import ALL
from markovlm.terminal.plain import say

SECTIONS = {
    "Train and evaluate": (demo, train, evaluate, ask, sweep, export),
    "Does the answer depend on the CoT? (runs, adapters, models)": (perturb, transfer, explain, loadbearing),
    "Without training anything: CoTs and logs of any source": (check, audit, diagnose, watch, report),
    "What there is": (tasks, models, configs),
}
COMMANDS = (*(command for some in SECTIONS.values() for command in some), sweep_cell)
_LOG = "MARKOVLM_LOG"  # environment variable: the level from which the package's log is printed
_LOG_LEVELS = ("debug", "info", "warning", "error")
_GRACE = 10.0  # seconds in which the main process says the same and torchrun ends this one; if it doesn't, nobody else knew


class _Sections(click.Group):
    """Commands by what they are for, in `--help`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(command.name or "") for command in COMMANDS if not command.hidden)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([((command.name or "").ljust(width), command.get_short_help_str(200)) for command in commands])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="markovlm")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train language models whose chain of thought carries the whole answer, and measure that it does."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and context.invoked_subcommand != "train":  # they would write the same files
        raise UserError(
            f"{context.invoked_subcommand}: runs in one process, and torchrun started {processes}; only train takes several"
        )


for _command in COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 the work failed, 2 bad input, 3 a verdict that says stop, 4 a log that stands still, 130 interrupted at once."""
    try:
        _start_log(os.environ.get(_LOG))
        rest, files = take_plugins(sys.argv[1:] if arguments is None else arguments)
        for file in files:
            load_plugin(file)
        with _notes():
            code = cli.main(args=task_option_flags(rest), prog_name="markovlm", standalone_mode=False)
        _warn_of_broken_plugins()
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
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _complain(f"{error.filename or 'writing'}: {error.strerror}; free space", 1)
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}", 1 if error.errno else 2)  # 0: `check_regular`'s


def _start_log(level: str | None) -> None:
    """What the package logs goes to standard error from this level on. UserError for one that does not exist."""
    if not level:
        return
    if level.lower() not in _LOG_LEVELS:
        raise UserError(f"{_LOG}={level}: use {', '.join(_LOG_LEVELS[:-1])} or {_LOG_LEVELS[-1]}")
    logger = logging.getLogger("markovlm")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(level.upper())


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """What is to be known (`Note`) is said in one line each, once."""
    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.simplefilter("default", Note)
        said: set[str] = set()  # the filter forgets what it showed when any library changes the filters

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, Note):
                text = " ".join(str(message).split())
                say(f"markovlm: note: {text}", err=True) if not rank() and text not in said else None
                said.add(text)
            else:
                others(message, category, *where)

        warnings.showwarning = show
        yield


def _warn_of_broken_plugins() -> None:
    """Entry points that could not be used: said once, whatever the command was about."""
    for reason in dict.fromkeys(reason for registry in ALL for reason in registry.broken.values()):
        say(f"markovlm: note: {reason}", err=True)


def _complain(message: str, code: int, own: bool = False) -> int:
    """One line. Of several processes the main one says what all have to say, each what is its `own`."""
    if rank() and not own:
        time.sleep(_GRACE)
    name = f"markovlm (process {rank()})" if rank() else "markovlm"
    say(f"{name}: {' '.join(message.split())}", err=True)
    return code


def entry() -> None:
    """Console script."""
    sys.exit(main())
