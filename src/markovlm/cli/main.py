"""The command line: parse, build a config, call, print. Nothing is computed here, and torch is imported only to compute."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

from markovlm._version import __version__
from markovlm.cli.common import rank
from markovlm.cli.flags import take_plugins, task_option_flags
from markovlm.errors import TRAINING, MarkovlmError, Note, PeerLost, UserError, missing
from markovlm.plugins import load_plugin
from markovlm.registry import ALL
from markovlm.terminal.plain import say

SECTIONS = {
    "Train and evaluate": ("demo", "train", "eval", "ask", "sweep", "export"),
    "Does the answer depend on the CoT? (runs, adapters, models)": ("perturb", "transfer", "explain", "loadbearing"),
    "Without training: CoTs and logs from any source": ("check", "audit", "diagnose", "watch", "report"),
    "What is available": ("tasks", "models", "configs"),
}
NAMES = (*(name for some in SECTIONS.values() for name in some), "sweep-cell")
_FUNCTIONS = {"eval": "evaluate"}  # those that are not called like their command
_LOG = "MARKOVLM_LOG"  # environment variable: the level from which the package's log is printed
_LOG_LEVELS = ("debug", "info", "warning", "error")
# How often a waiting OpenMP thread looks before it sleeps. GNU's own 300,000 take the core away from other programs, and the thread that
# is waited for with it: on a busy machine a step took 47 to 144 s instead of 22 to 32 (docs/performance.md). Read when torch is imported.
_SPINS = "2000"
_GRACE = 10.0  # seconds in which the main process says the same and torchrun ends this one; if it doesn't, nobody else knew


class _Sections(click.Group):
    """Commands by what they are for, in `--help`. A command's file is imported when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NAMES:
            return None
        module = cmd_name.replace("-", "_")
        return getattr(importlib.import_module(f"markovlm.cli.{module}"), _FUNCTIONS.get(cmd_name, module))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, NAMES))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name.ljust(width), found.get_short_help_str(200)) for name, found in commands if found])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="markovlm")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train language models whose chain of thought carries the whole answer, and measure whether it does."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and context.invoked_subcommand != "train":  # they would write the same files
        raise UserError(
            f"{context.invoked_subcommand} runs in one process, but torchrun started {processes}; only train can use several"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 the work failed, 2 bad input, 3 a verdict that says stop, 4 a stalled log, 130 interrupted at once."""
    rest: Sequence[str] = ()
    try:
        _start_log(os.environ.get(_LOG))
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
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
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAINING:
            raise
        asked = next((word for word in rest if word in NAMES), "this")
        return _complain(str(missing(error.name or "", asked)), 2)
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
    """What the package logs goes to standard error from this level on. Raises UserError for one that does not exist."""
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
