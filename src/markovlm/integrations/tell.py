"""Report a changed verdict on this machine: by a command, or a webhook."""

from __future__ import annotations

import http.client
import ipaddress
import json
import queue
import shlex
import socket
import subprocess
import threading
import urllib.request
from typing import Any

from markovlm.addresses import http_host
from markovlm.errors import UserError

_SECONDS = 60.0  # that a command has
_HOOK_SECONDS = 10.0


def command_of(text: str) -> list[str]:
    """The words of `--exec`; no shell ever sees them. Raises UserError if there are none."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--exec {text}: {error}") from None
    if not words:
        raise UserError("--exec: give a command, for example --exec 'notify-send markovlm'")
    return words


def webhook_of(url: str) -> str:
    """The URL if it is on this machine; raises UserError for any other."""
    host = http_host(url)
    if host is None:
        raise UserError(f"--webhook {url}: must be http://localhost:PORT/PATH")
    if host not in ("localhost", socket.gethostname()) and not _is_loopback(host):
        raise UserError(f"--webhook {url}: {host} is not this machine; to reach it, forward from a service on localhost")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def call_command(command: list[str], message: dict[str, Any]) -> str | None:
    """Run it with VERDICT (or `stalled`), STEP and PATH as further arguments and the message as JSON on its input; what went wrong, or None."""
    step = message["onset_step"] if message["onset_step"] is not None else message["last_step"]
    what = "stalled" if message.get("stalled_seconds") is not None else str(message["verdict"])
    path = str(message["path"])
    path = f"./{path}" if path.startswith("-") else path  # a name is never taken for an option
    words = [*command, what, "" if step is None else str(step), path]
    try:
        done = subprocess.run(words, input=json.dumps(message), text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return f"{command[0]}: {error}"
    return f"{command[0]}: exit code {done.returncode}" if done.returncode else None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def call_webhook(url: str, message: dict[str, Any]) -> str | None:
    """POST the message as JSON, no proxy and no redirect; what went wrong, or None. A server that hangs or drips is given ten seconds."""
    outcome: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(_post(url, message)), daemon=True).start()
    try:
        return outcome.get(timeout=_HOOK_SECONDS)
    except queue.Empty:
        return f"{url}: no response within {_HOOK_SECONDS:g} s"


def _post(url: str, message: dict[str, Any]) -> str | None:
    request = urllib.request.Request(url, json.dumps(message).encode(), {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    try:
        with opener.open(request, timeout=_HOOK_SECONDS):
            return None
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{url}: {error or type(error).__name__}"
