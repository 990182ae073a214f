"""A sampler server that answers slowly, hugely or wrongly, in the middle of a run."""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from chaos_parts.harness import Case, Place, case, start, tried, wait
from support import runs, tiny
from support.fake_vllm import FakeVllm

Talk = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def _json(value: Any, code: str = "200 OK") -> Talk:
    return lambda c: c.sendall(f"HTTP/1.1 {code}\r\nConnection: close\r\n\r\n".encode() + json.dumps(value).encode())


def _choice(**over: Any) -> Any:
    return {"choices": [{"token_ids": [40] * 5, "logprobs": {"token_logprobs": [-1.0] * 5}, "finish_reason": "length", **over}]}


def _drip(start: bytes, piece: bytes) -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return talk


def _flood(connection: socket.socket) -> None:
    connection.sendall(OK + b"[")
    while True:
        connection.sendall(b"0," * 500_000)


WRONG: dict[str, Talk] = {
    "nothing, and closes": lambda c: None,
    "nothing, and waits": lambda c: time.sleep(60),
    "a byte now and then": _drip(OK, b" "),
    "headers without end": _drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "a body without end": _flood,
    "a body that is cut off": lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{"),
    "a length that is no number": lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
    "a chunk of nonsense": lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "no HTTP": lambda c: c.sendall(b"\x16\x03\x01" * 100),
    "a redirect": lambda c: c.sendall(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
    "500 and a page": lambda c: c.sendall(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n<html>\x1b[2J" + b"x" * 100_000),
    "404 and a hostile message": _json({"error": {"message": "\x1b[31mno\nmore\u202e" * 1000}}, "404 Not Found"),
    "no JSON": lambda c: c.sendall(OK + b"hello"),
    "nested JSON": lambda c: c.sendall(OK + b"[" * 1_000_000),
    "a list": _json([]),
    "null": _json(None),
    "no choices": _json({"choices": []}),
    "no tokens": _json(_choice(token_ids=[], logprobs={"token_logprobs": []})),
    "too many tokens": _json(_choice(token_ids=[40] * 5000, logprobs={"token_logprobs": [-1.0] * 5000})),
    "too few log-probs": _json(_choice(logprobs={"token_logprobs": [-1.0]})),
    "tokens outside the vocabulary": _json(_choice(token_ids=[10**9] * 5)),
    "negative tokens": _json(_choice(token_ids=[-1] * 5)),
    "tokens that are texts": _json(_choice(token_ids=["40"] * 5)),
    "tokens that are true": _json(_choice(token_ids=[True] * 5)),
    "log-probs that are no numbers": _json(_choice(logprobs={"token_logprobs": [float("nan")] * 5})),
    "log-probs without end": _json(_choice(logprobs={"token_logprobs": [float("-inf")] * 5})),
    "log-probs above 0": _json(_choice(logprobs={"token_logprobs": [3.0] * 5})),
    "always the same": _json(_choice()),
}


class _Gate:
    """A server in front of a good one, which after some completions says something else."""

    def __init__(self, good: FakeVllm, wrong: Talk, after: int):
        self.good, self.wrong, self.after = good, wrong, after
        self.asked = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = connection.recv(1 << 16)
            while b"\r\n\r\n" not in request:
                request += connection.recv(1 << 16)
            head, _, body = request.partition(b"\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")), 0
            )
            while len(body) < length:
                body += connection.recv(1 << 16)
            if b"/v1/completions" in head.splitlines()[0]:
                self.asked += 1
                if self.asked > self.after:
                    self.wrong(connection)
                    return
            host, port = self.good.server.server_address[:2]
            with socket.create_connection((host, port)) as inner:
                inner.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
                while piece := inner.recv(1 << 16):
                    connection.sendall(piece)


def samplers(place: Place) -> Iterator[Case]:
    """Answers that are wrong in some thirty ways, from the first or in the middle of a run: one line in bounded time and
    memory, the steps before are kept, and the run continues with a working server."""
    from markovlm.runs.ahead import resumed_config

    with FakeVllm(place.model) as good:
        for name, wrong in WRONG.items():
            for after in place.some((0, 26)):
                folder = place.new("server")
                gate = _Gate(good, wrong, after)
                keys = {
                    "rollouts__backend": "server",
                    "loading__dtype": "float32",
                    "training__steps": 6,
                    "training__checkpoint_every": 50,
                }
                made = tiny.config(place.model, rollouts__server_url=gate.url, **keys)

                def work(made: Any = made, out: Any = folder / "run") -> int:
                    from markovlm.errors import MarkovlmError
                    from markovlm.rollouts import server
                    from markovlm.training.loop import train

                    server._PATIENCE, server._WAITS, server._MOST_ANSWER = 2.0, (0.05,), 8 << 20
                    try:
                        train(made, out)
                    except MarkovlmError as error:
                        return importlib.import_module("markovlm.cli.main")._complain(str(error), error.exit_code)
                    return 0

                done = wait(start("train", "", cwd=folder, work=work), 120)
                gate.close()
                yield case(f"{name}, {'from the first' if not after else 'in the middle'}", done, 1, 2, most=600)
                out = folder / "run"
                if (out / "config.yaml").exists():

                    def again(out: Any = out) -> None:
                        before = len(runs.rows(out, "metrics.jsonl"))
                        from markovlm.training.loop import train

                        train(
                            resumed_config(
                                out, {"rollouts": {"server_url": good.url}, "training": {"steps": max(before, 1) + 1}}
                            ),
                            out,
                            resume=True,
                        )
                        steps = [row["step"] for row in runs.rows(out, "metrics.jsonl")]
                        assert steps == list(range(1, max(before, 1) + 2)), steps

                    yield tried(f"{name}: goes on with another server", again)
