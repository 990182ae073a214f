"""Sampling by a running vLLM server (its OpenAI-compatible API), which gets the adapter after every update.

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK --logprobs-mode processed_logprobs

Prompts go as token ids and CoTs come back as token ids: no text is encoded twice. Every CoT is a request of its own, with a seed from
its key (seed, step, question, sample). Neither the server's generation config nor its end tokens affect what is drawn.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from markovlm.addresses import http_host
from markovlm.content import one_line
from markovlm.errors import RunFailed, UserError
from markovlm.models.language import LanguageModel
from markovlm.rollouts.ends import cut_off
from markovlm.rollouts.foreign import ForeignSampler, Job
from markovlm.rollouts.streams import torch_seed
from markovlm.rollouts.types import CoT, Decoding, SamplerPlace

_CONNECTIONS = 64  # requests under way at once; the server batches them
_PATIENCE = 600.0  # seconds for one whole answer
_WAITS = (0.5, 2.0)  # seconds before another try where nobody answers
_MOST_ANSWER = 64 << 20  # bytes


class _Refused(RunFailed):
    """The server answers, and says no."""


class _Unfit(OSError):
    """An answer that another try would not make better."""


class ServerSampler(ForeignSampler):
    """Samples from a vLLM server."""

    def __init__(self, lm: LanguageModel, url: str, folder: Path):
        super().__init__(lm, folder.resolve())
        self.url = url.rstrip("/")
        self.base = self._base_model()

    def _base_model(self) -> str:
        """What the server calls the model without an adapter. Raises UserError if none answers."""
        try:
            served = self._ask("/v1/models")["data"]
            return next(str(model["id"]) for model in served if not model.get("parent"))
        except (KeyError, TypeError, AttributeError, StopIteration):
            raise UserError(f"rollouts.server_url {self.url}: is not a vLLM server: its /v1/models lists no model") from None
        except RunFailed as error:
            raise UserError(str(error)) from None

    def draw(self, jobs: Sequence[Job], decoding: Decoding, adapter: str | None) -> list[CoT]:
        pool = ThreadPoolExecutor(max(1, min(_CONNECTIONS, len(jobs))))
        try:
            return list(pool.map(lambda job: self._one(job, decoding, adapter or self.base), jobs))
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, job: Job, decoding: Decoding, model: str) -> CoT:
        prompt, key = job
        answer = self._ask("/v1/completions", {"model": model, "prompt": list(prompt), **_wanted(self.lm, decoding, key)})
        choice = _choice(answer, self.lm.vocabulary, decoding.max_tokens)
        if choice is None:
            raise RunFailed(
                f"rollouts.server_url {self.url}: its response has no tokens with log-probs: it must be vLLM 0.11 or later, "
                f"serving {self.lm.name!r}"
            )
        tokens, logps, reason = choice
        cot = cut_off(self.lm, tokens, logps, decoding)
        if not cot.ended and len(cot.tokens) < decoding.max_tokens:
            raise RunFailed(
                f"rollouts.server_url {self.url}: it ended a CoT after {len(tokens)} of {decoding.max_tokens} tokens "
                f"({one_line(reason)}): prompt and CoT must fit its --max-model-len, and it must serve {self.lm.name!r}"
            )
        return cot

    def load(self, name: str, directory: Path) -> None:
        try:
            self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(directory)})
        except _Refused as error:
            raise RunFailed(
                f"{error} (when asked to load the adapter in {directory}: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, "
                "--enable-lora and a --max-lora-rank of at least lora.rank, on a machine that can read this directory)"
            ) from None

    def drop(self, name: str) -> None:
        try:
            self._ask("/v1/unload_lora_adapter", {"lora_name": name}, tries=1)
        except RunFailed:
            return  # it is gone, or has forgotten the adapter by itself

    def _ask(self, path: str, body: Mapping[str, Any] | None = None, tries: int = len(_WAITS) + 1) -> Any:
        """JSON in, JSON (or text) out. Raises RunFailed in one line."""
        data = None if body is None else json.dumps(body).encode()
        for wait in (*_WAITS[: tries - 1], None):
            try:
                status, answer = _exchange(self.url, path, data)
                if status != 200:
                    raise _Refused(f"rollouts.server_url {self.url}: {path} failed: {_reason(status, answer)}")
                return _decoded(answer)
            except (OSError, ValueError, http.client.HTTPException) as error:
                if wait is None or isinstance(error, _Unfit):
                    said = one_line(str(error) or type(error).__name__)
                    raise RunFailed(
                        f"rollouts.server_url {self.url}: the server does not respond ({said}); start it; a run that had begun "
                        "continues with --resume"
                    ) from None
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def _exchange(url: str, path: str, data: bytes | None) -> tuple[int, bytes]:
    """Status and body of one request, over no proxy and to no other address. Raises OSError if it takes too long or the answer is too
    large.
    """
    where = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.hostname or "", where.port, timeout=_PATIENCE)
    late, status = threading.Event(), 0
    try:
        connection.connect()
        hang_up = threading.Timer(_PATIENCE, _hang_up, (connection.sock, late))  # of the whole: a byte now and then is no answer
        hang_up.daemon = True
        hang_up.start()
        try:
            method = "GET" if data is None else "POST"
            connection.request(method, where.path + path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            status, body = answer.status, answer.read(_MOST_ANSWER + 1)
            if answer.length and len(body) <= _MOST_ANSWER:
                raise http.client.IncompleteRead(body, answer.length)
        except (OSError, http.client.HTTPException) as error:
            if not late.is_set() and not isinstance(error, TimeoutError):
                raise
            late.set()
            body = b""
        finally:
            hang_up.cancel()
    finally:
        connection.close()
    if late.is_set():
        raise _Unfit(f"no complete response within {_PATIENCE:g} seconds")
    if len(body) > _MOST_ANSWER:
        raise _Unfit(f"a response of more than {_MOST_ANSWER >> 20} MB")
    return status, body


def _hang_up(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def build_server(place: SamplerPlace) -> ServerSampler:
    """Build the sampler for `rollouts.backend: server`."""
    url = place.rollouts.server_url or ""
    if http_host(url) is None:
        raise UserError(f"rollouts.server_url: {url!r} is not an address such as http://HOST:8000")
    return ServerSampler(place.lm, url, place.folder)


def _wanted(lm: LanguageModel, decoding: Decoding, key: tuple[str | int, ...]) -> dict[str, Any]:
    """The distribution to draw from, in vLLM's words: everything that its defaults could change is said."""
    length = decoding.max_tokens
    return {
        "max_tokens": length,
        "min_tokens": length if decoding.fixed_length else 0,  # masks the end tokens until then
        "stop_token_ids": list(lm.terminators),
        "ignore_eos": True,  # those above end a CoT, no others
        "stop": []
        if decoding.stop_after_text
        else list(decoding.stop),  # a server would stop at the first; those are found afterwards
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "temperature": decoding.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": torch_seed(*key),
        "logprobs": 1,
        "return_token_ids": True,
    }


def _choice(answer: Any, vocabulary: int, most: int) -> tuple[list[int], list[float], object] | None:
    """Tokens, log-probs and why it ended; None if the answer has not got them."""
    try:
        choice = answer["choices"][0]
        tokens, logps = list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    right = len(tokens) == len(logps) and 0 < len(tokens) <= most
    right = right and all(type(token) is int and 0 <= token < vocabulary for token in tokens)
    return (
        (tokens, logps, reason) if right and all(type(logp) in (float, int) and math.isfinite(logp) for logp in logps) else None
    )


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _reason(status: int, body: bytes) -> str:
    """What the server says of a request that it refused."""
    said = _decoded(body)
    found = said.get("error", said) if isinstance(said, Mapping) else {}
    words = (found.get("message") or found.get("detail")) if isinstance(found, Mapping) else None
    return one_line(words or http.client.responses.get(status, "refused")) + f" (HTTP {status})"
