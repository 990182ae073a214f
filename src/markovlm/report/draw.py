"""Vega outside of this process: SVGs and the script library are made by helpers while the logs are read and judged.

vl-convert holds Python's lock while it works, so threads would not help. This file is also the helper's program
(`python draw.py`): it imports only vl-convert, reads one JSON request a line and answers with one JSON line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_LIBRARY = "window.vegaEmbed = vegaEmbed;"
_NO_XML = re.compile(
    "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # characters that no SVG may hold: vl-convert aborts at some


def answer(request: Mapping[str, Any]) -> str:
    """The SVG of a specification, or the script library."""
    import vl_convert

    if "spec" in request:
        return vl_convert.vegalite_to_svg(_drawable(request["spec"]), config=request["config"])
    return vl_convert.javascript_bundle(_LIBRARY)


def _drawable(value: Any) -> Any:
    """A specification whose texts an SVG can hold: control characters, of a run's name say, become �."""
    if isinstance(value, str):
        return _NO_XML.sub("\ufffd", value)
    if isinstance(value, list):
        return [_drawable(one) for one in value]
    if isinstance(value, dict):
        return {_drawable(key): _drawable(one) for key, one in value.items()}
    return value


class DrawingFailed(Exception):
    """A specification that Vega refuses."""


class Drawers:
    """Helpers that draw. Use as a context manager; futures are ready when the helpers are."""

    def __init__(self, count: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(count or min(2, os.cpu_count() or 1))
        self._own = threading.local()
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for helper in self._started:
            with contextlib.suppress(BrokenPipeError):  # of one that died
                helper.communicate()  # closes its input, at which it ends

    def library(self) -> Future[str]:
        """Vega, Vega-Lite and Vega-Embed as one script."""
        return self._pool.submit(self._ask, {})

    def svg(self, spec: Mapping[str, Any], config: Mapping[str, Any]) -> Future[str]:
        """The figure as SVG; the future raises DrawingFailed where Vega refuses it."""
        return self._pool.submit(self._ask, {"spec": spec, "config": config})

    def _ask(self, request: Mapping[str, Any]) -> str:
        helper = self._helper()
        assert helper.stdin is not None
        assert helper.stdout is not None
        reply = ""
        with contextlib.suppress(BrokenPipeError):  # it died after its last answer
            helper.stdin.write(json.dumps(request) + "\n")
            helper.stdin.flush()
            reply = helper.stdout.readline()
        if not reply:
            del self._own.helper  # the next drawing gets a new one
            raise DrawingFailed("the drawing helper ended unexpectedly")
        found = json.loads(reply)
        if "error" in found:
            raise DrawingFailed(found["error"])
        return found["result"]

    def _helper(self) -> subprocess.Popen[str]:
        """This thread's helper, started at its first request."""
        if not hasattr(self._own, "helper"):
            command = [sys.executable, __file__]
            self._own.helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._started.append(self._own.helper)
        return self._own.helper


def serve() -> None:
    """The helper's loop."""
    for line in sys.stdin:
        try:
            reply = {"result": answer(json.loads(line))}
        except Exception as error:  # whatever Vega raises is the caller's to tell; the helper goes on
            reply = {"error": str(error)[:500] or type(error).__name__}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    serve()
