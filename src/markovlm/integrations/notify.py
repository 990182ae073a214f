"""`watch --notify`: one message per change to Slack, Discord or any https webhook.

The address is read from the environment alone, since a webhook's URL is its password: it appears in no command line, file, log or
error. The message is the verdict. Parts of it come from logs, so nothing in it can mention people or become a link or a command.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markovlm._version import __version__
from markovlm.content import one_line
from markovlm.errors import UserError
from markovlm.integrations.post import Place, PostFailed, PrivateAddress, post, public_addresses
from markovlm.intervals import duration_text

WAITS = (1.0, 5.0, 15.0)  # seconds before the second try and those after it
LONGEST_WAIT = 60.0  # that a host may ask for (Retry-After)
_LONGEST_TEXT = 1800  # characters; Discord refuses 2,000
_LONGEST_LINE = 400


def _slack(message: Mapping[str, Any]) -> dict[str, Any]:
    text = str(message["text"]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # no <!channel>, no link
    return {"text": text, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}


def _discord(message: Mapping[str, Any]) -> dict[str, Any]:
    text = re.sub(r"([\\*_~`|<>\[\]()#])", r"\\\1", str(message["text"]))[:1990]
    return {"content": text, "allowed_mentions": {"parse": []}, "flags": 1 << 2}  # nobody is called, no previews of links


@dataclass(frozen=True, slots=True)
class Service:
    """What a service's webhook accepts."""

    variable: str  # of the environment, with the URL
    body: Callable[[Mapping[str, Any]], Mapping[str, Any]]


SERVICES: Mapping[str, Service] = {
    "slack": Service("MARKOVLM_SLACK_WEBHOOK", _slack),
    "discord": Service("MARKOVLM_DISCORD_WEBHOOK", _discord),
    "webhook": Service("MARKOVLM_WEBHOOK", dict),
}


@dataclass(frozen=True, slots=True)
class Channel:
    """One place that messages go to."""

    name: str  # as in `--notify`
    service: Service
    place: Place = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def deliver(self, message: Mapping[str, Any], wait: Callable[[float], None] = time.sleep) -> str | None:
        """Try until it is accepted or hopeless; returns what went wrong in one line, or None."""
        body = json.dumps(self.service.body(message)).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"markovlm/{__version__}",
            "Idempotency-Key": str(message["id"]),
            **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
        }
        for number, pause in enumerate((*WAITS, None), 1):
            try:
                post(self.place, body, headers)
            except PostFailed as failed:
                if pause is None or not failed.again:
                    tries = f" ({number} tries)" if number > 1 else ""
                    return f"--notify {self.name}: not delivered: {failed}{tries}"
                wait(min(max(pause, failed.wait or 0.0), LONGEST_WAIT))
            else:
                return None
        raise AssertionError("the last try returns")


def channels_of(names: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[Channel]:
    """The channels of `--notify SERVICE[=VARIABLE]`. UserError, which never says a URL, for what can't work."""
    found: dict[str, Channel] = {}
    for given in names:
        name, _, variable = given.partition("=")
        if "://" in given:
            raise UserError(
                "--notify: a webhook's URL is its password and does not belong in a command line: "
                f"export {SERVICES['slack'].variable}=… and give --notify slack (or {', '.join([*SERVICES][1:])})"
            )
        if name not in SERVICES:
            raise UserError(f"--notify {given}: must be one of {', '.join(SERVICES)}, or SERVICE=VARIABLE for your own variable")
        found.setdefault(given, _channel(given, SERVICES[name], variable or SERVICES[name].variable, environment))
    return list(found.values())


def _channel(name: str, service: Service, variable: str, environment: Mapping[str, str]) -> Channel:
    url = environment.get(variable, "").strip()
    if not url:
        raise UserError(f"--notify {name}: the environment variable {variable} is not set; it holds the webhook's https URL")
    try:
        place = Place.of(url)
    except (ValueError, PrivateAddress) as error:
        raise UserError(f"--notify {name}: {variable}: {error}") from None
    token = environment.get(f"{variable}_TOKEN", "").strip()
    if any(not " " < c < "\x7f" for c in token):
        raise UserError(f"--notify {name}: {variable}_TOKEN: it contains a blank or a non-ASCII character")
    return Channel(name, service, place, token or None)


def check(channels: Sequence[Channel]) -> None:
    """Raises UserError for a host that is inside. One that has no address now may have one when it is needed."""
    for channel in channels:
        try:
            public_addresses(channel.place)
        except PrivateAddress as error:
            raise UserError(f"--notify {channel.name}: {error}") from None
        except OSError:
            continue


def message_of(change: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent about a change (`Change.as_json`): it, a text for people, the machine, and an id that is the same however often it is sent."""
    told = {**change, "host": socket.gethostname()}
    mark = hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()
    return {**told, "text": text_of(told), "id": mark}


def text_of(change: Mapping[str, Any]) -> str:
    """The message as a few lines of text."""
    stalled = change.get("stalled_seconds")
    step = f" at step {change['last_step']:,}" if change.get("last_step") is not None else ""
    launch = change.get("launch") or {}
    of = f" (launch {launch['number']} of {launch['of']})" if launch.get("of", 1) > 1 else ""
    where = f"{change['path']}{of}{step} on {change['host']}"
    if stalled is not None:
        lines = [f"stalled: {where}", f"no new row for {duration_text(float(stalled))}; verdict so far: {change['verdict']}"]
    else:
        before = f" (was {change['before']})" if change.get("before") else ""
        since = f", since step {change['onset_step']:,}" if change.get("onset_step") is not None else ""
        cause = [f"cause: {str(change['cause']).replace('_', ' ')}"] if change.get("cause") else []
        lines = [f"{change['verdict']}{before}: {where}{since}", str(change["why"]), *cause]
    lines += [f"cost: {line}" for line in (change.get("cost") or {}).get("lines", ())]
    return "\n".join(one_line(line, _LONGEST_LINE) for line in lines)[:_LONGEST_TEXT]


class Notifier:
    """Sends in the background, in order: a webhook that hangs delays no verdict."""

    def __init__(self, channels: Sequence[Channel], note: Callable[[str], None], wait: Callable[[float], None] = time.sleep):
        self._note, self._wait = note, wait
        self._lines: list[tuple[Channel, queue.SimpleQueue[Mapping[str, Any] | None], threading.Thread]] = []
        for channel in channels:
            line: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, args=(channel, line), daemon=True)
            thread.start()
            self._lines.append((channel, line, thread))

    def send(self, change: Mapping[str, Any]) -> None:
        """One message to every channel."""
        if self._lines:
            message = message_of(change)
            for _, line, _ in self._lines:
                line.put(message)

    def close(self, seconds: float = 90.0) -> None:
        """Wait until everything is delivered or given up, at most this long; what is not delivered then is reported."""
        until = time.monotonic() + seconds
        for _, line, _ in self._lines:
            line.put(None)
        for channel, _, thread in self._lines:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._note(f"--notify {channel.name}: not delivered when watching ended")
        self._lines = []

    def _work(self, channel: Channel, line: queue.SimpleQueue[Mapping[str, Any] | None]) -> None:
        while (message := line.get()) is not None:
            if (wrong := channel.deliver(message, self._wait)) is not None:
                self._note(wrong)
