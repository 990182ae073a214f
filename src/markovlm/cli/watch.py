"""`markovlm watch`."""

from __future__ import annotations

import time

import click

from markovlm.cli.flags import Command, map_option
from markovlm.errors import UserError
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="Follow growing logs; say when a verdict changes.")
@click.argument("paths", metavar="RUN|LOG|DIR ...", nargs=-1, required=True)
@click.option("--every", type=float, default=5.0, help="seconds between checks [default 5]")
@click.option(
    "--idle", type=float, help="stop (exit 0) when nothing has grown for this many seconds; 0 checks once [default: never]"
)
@click.option(
    "--stalled",
    type=float,
    metavar="SECONDS",
    help="stop (exit 4) when the log of an unfinished run has not grown for this long [default: only report it, after "
    "ten times the usual interval]",
)
@click.option(
    "--exec",
    "command",
    metavar="COMMAND",
    help="run this on every change, with arguments VERDICT STEP PATH and JSON on standard input",
)
@click.option("--webhook", metavar="URL", help="POST every change as JSON to a port on this machine")
@click.option(
    "--notify",
    multiple=True,
    metavar="SERVICE",
    help="send one message per change to slack, discord or webhook (any https URL); the URL is read from "
    "MARKOVLM_SLACK_WEBHOOK, MARKOVLM_DISCORD_WEBHOOK, MARKOVLM_WEBHOOK, or, with SERVICE=VARIABLE, from VARIABLE;"
    " repeatable",
)
@click.option(
    "--fail-on",
    type=click.Choice(["collapsed", "warn"]),
    default="collapsed",
    help="verdict at which to stop with exit code 3: a collapse [default], or a warning too",
)
@click.option(
    "--keep-going",
    is_flag=True,
    help="continue after a collapse or a stall (other runs may still be healthy); exit 3 or 4 at the end",
)
@map_option
@click.option("--json", "as_json", is_flag=True, help="print changes as JSON, one per line")
def watch(
    paths: tuple[str, ...],
    every: float,
    idle: float | None,
    stalled: float | None,
    command: str | None,
    webhook: str | None,
    notify: tuple[str, ...],
    fail_on: str,
    keep_going: bool,
    columns: tuple[str, ...],
    as_json: bool,
) -> int:
    """Follow growing logs; report when a verdict changes or a log stops growing. Exit 3 on a collapse, 4 on a stall."""
    from markovlm.health.verdict import FAILS_ON
    from markovlm.integrations.follow import follow
    from markovlm.integrations.notify import Notifier, channels_of, check
    from markovlm.integrations.tell import call_command, call_webhook, command_of, webhook_of
    from markovlm.logs.mapping import read_mapping
    from markovlm.terminal.diagnosis import show_change

    if every <= 0 or (idle is not None and idle < 0) or (stalled is not None and stalled <= 0):
        raise UserError("--every and --stalled must be above 0 seconds, --idle 0 or more")
    words = command_of(command) if command is not None else None
    url = webhook_of(webhook) if webhook is not None else None
    channels = channels_of(notify)
    check(channels)
    notifier = Notifier(channels, lambda line: say(f"markovlm: note: {line}", err=True))
    failed, still = False, False
    try:
        for change in follow(paths, every, idle, read_mapping(columns), stalled):
            show_change(change, time.strftime("%H:%M:%S"), as_json)
            if change.matters:
                message = change.as_json()
                notifier.send(message)
                wrong = [call_command(words, message) if words else None, call_webhook(url, message) if url else None]
                for line in filter(None, wrong):
                    say(f"markovlm: note: {line}", err=True)
            still = still or (change.stalled is not None and stalled is not None)
            failed = failed or (change.stalled is None and change.diagnosis.verdict in FAILS_ON[fail_on])
            if (failed or still) and not keep_going:
                return 3 if failed else 4
    except KeyboardInterrupt:
        say("markovlm: no longer watching", err=True)
        notifier.close(5.0)
    finally:
        notifier.close()
    return 3 if failed else 4 if still else 0
