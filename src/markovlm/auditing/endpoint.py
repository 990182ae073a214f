"""An OpenAI-compatible server that gives the log-probs of a prompt (vLLM, SGLang): its completions API, and nothing it says is trusted.

Only text goes there: no tokenizer is needed here. `echo` with `logprobs` gives the prompt's tokens with their log-probs, which are found again
by their offsets. A key, where the server wants one, is taken from the environment variable MARKOVLM_API_KEY.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from markovlm.addresses import http_host
from markovlm.content import one_line
from markovlm.errors import RunFailed, UserError

T = TypeVar("T")
R = TypeVar("R")

KEY = "MARKOVLM_API_KEY"
MOST_BYTES = 256 << 20  # of one answer
_CONNECTIONS = 32  # requests under way at once; the server batches them
_PATIENCE = 600.0  # seconds for one answer
_WAITS = (0.5, 2.0, 8.0)  # seconds before another try where nobody answers, or is too busy
_BUSY = (429, 502, 503, 504)
_MARK, _REPLY = "\ue000", "\ue001"  # stand for the user's and the assistant's words while the chat template is asked for
SPECIAL = re.compile(  # of most families: which tokens are the model's own, the server does not say
    r"<\|[^<>|\s]{1,40}\|>|<(/?s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|/think)>|\[/?INST\]|<｜[^<>｜]{1,40}｜>"
)
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Template:
    """What a chat template puts before and after the user's words, and the token with which it ends the assistant's."""

    before: str
    behind: str
    end: str = ""  # it is not known


class Endpoint:
    """One model of a server."""

    def __init__(self, address: str):
        """`http://HOST:8000`, or `http://HOST:8000#MODEL` for a server with several. Raises UserError for an invalid address."""
        url, _, model = address.partition("#")
        if http_host(url) is None:
            raise UserError(
                f"{address!r} is not an address such as http://HOST:8000 or, with several models, http://HOST:8000#MODEL"
            )
        self.url = url.rstrip("/").removesuffix("/v1")
        self.wanted = model or None
        self.model = ""
        self.context_tokens = 1 << 30

    def connect(self) -> None:
        """Find the model. Raises UserError in one line if there is none."""
        try:
            served = self.ask("/v1/models")["data"]
            names = {str(one["id"]): one for one in served}
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{self.url}: is not an OpenAI-compatible server: its /v1/models lists no model") from None
        except RunFailed as error:
            raise UserError(str(error)) from None
        if not names or (self.wanted is not None and self.wanted not in names):
            raise UserError(f"{self.url}: serves {', '.join(map(one_line, names)) or 'no model'}, not {self.wanted!r}")
        self.model = self.wanted or next(iter(names))
        length = names[self.model].get("max_model_len")
        if isinstance(length, int) and length > 0:
            self.context_tokens = length

    def template(self) -> Template | None:
        """The model's chat template around a user's words, from vLLM's /tokenize and /detokenize; None if the server has no such thing."""
        user = {"role": "user", "content": _MARK}
        text = self._rendered([user], add_generation_prompt=True)
        if text.count(_MARK) != 1:
            return None
        before, behind = text.split(_MARK)
        exchange = self._rendered([user, {"role": "assistant", "content": _REPLY}], add_generation_prompt=False)
        end = SPECIAL.search(exchange.partition(_REPLY)[2])
        return Template(before, behind, end[0] if end else "")

    def _rendered(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """A conversation as the model's chat template writes it; empty if the server does not say."""
        try:
            asked = {
                "model": self.model,
                "messages": messages,
                "add_generation_prompt": add_generation_prompt,
                "chat_template_kwargs": {"enable_thinking": False},
            }
            tokens = self.ask("/tokenize", asked, tries=1)["tokens"]
            text = self.ask("/detokenize", {"model": self.model, "tokens": tokens}, tries=1)["prompt"]
        except (RunFailed, KeyError, TypeError):
            return ""
        return text if isinstance(text, str) else ""

    def count(self, text: str) -> int | None:
        """How many tokens a text has; None if the server does not say."""
        try:
            return int(self.ask("/tokenize", {"model": self.model, "prompt": text}, tries=1)["count"])
        except (RunFailed, KeyError, TypeError, ValueError):
            return None

    def end_logprobs(self, text: str, end: str, *, special: bool) -> list[float]:
        """ln p of each token of `end` after `text`, in the model's tokens. Raises RunFailed if the server does not return them.

        `special`: the text contains the special tokens of a chat template, and none are added.
        """
        body = {"prompt": text + end, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1, **self._specials(special)}
        choice = self._choice(self.complete(body))
        tokens, offsets = _prompt_tokens(choice)
        if tokens is None or offsets is None:
            raise RunFailed(f"{self.url}: returns no log-probs of the prompt (echo with logprobs); vLLM and SGLang do")
        # the offset of the generated token is the length of the whole text, whatever tokens were put in front of it
        first = offsets[-1] - len(end)
        inside = [number for number, offset in enumerate(offsets[:-1]) if offset >= first]
        if not inside or offsets[inside[0]] > first:
            # a token that begins before `end` has a part of it
            inside = [max(0, (inside[0] if inside else len(offsets) - 1) - 1), *inside]
        found = [tokens[number] for number in inside]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
            raise RunFailed(f"{self.url}: its log-probs are not numbers")
        return [float(value) for value in found if value is not None]

    def greedy(self, text: str, most: int, *, special: bool) -> tuple[str, bool]:
        """The greedy continuation of a text, with at most so many tokens; False: the server says that the limit cut it off."""
        body = {"prompt": text, "max_tokens": most, "temperature": 0.0, **self._specials(special)}
        choice = self._choice(self.complete(body))
        said = choice.get("text")
        if not isinstance(said, str):
            raise RunFailed(f"{self.url}: its completion has no text")
        return said[: 64 * most], choice.get("finish_reason") != "length"

    def complete(self, body: Mapping[str, Any]) -> Any:
        return self.ask("/v1/completions", {"model": self.model, **body})

    def _specials(self, special: bool) -> dict[str, Any]:
        return {"add_special_tokens": False} if special else {}

    def _choice(self, answer: Any) -> Mapping[str, Any]:
        try:
            choice = answer["choices"][0]
        except (KeyError, IndexError, TypeError):
            choice = None
        if not isinstance(choice, Mapping):
            raise RunFailed(f"{self.url}: its response is not a completion of the OpenAI API")
        return choice

    def each(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`work` on every item, many at once."""
        pool = ThreadPoolExecutor(max(1, min(_CONNECTIONS, len(items))))
        try:
            return list(pool.map(work, items))
        finally:
            pool.shutdown(cancel_futures=True)

    def ask(self, path: str, body: Mapping[str, Any] | None = None, tries: int = len(_WAITS) + 1) -> Any:
        """JSON in, JSON out. Raises RunFailed in one line."""
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        for wait in (*_WAITS[: tries - 1], None):
            try:
                with _DIRECT.open(request, timeout=_PATIENCE) as answer:
                    raw = answer.read(MOST_BYTES + 1)
                if len(raw) > MOST_BYTES:
                    raise RunFailed(f"{self.url}: the response to {path} is larger than {MOST_BYTES >> 20} MB")
                return json.loads(raw)
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY or wait is None:
                    raise RunFailed(f"{self.url}: {path} failed: {_reason(error)}") from None
            except ValueError:
                raise RunFailed(f"{self.url}: the response to {path} is not JSON") from None
            except (OSError, http.client.HTTPException) as error:
                if wait is None:
                    said = one_line(getattr(error, "reason", None) or error or type(error).__name__)
                    raise RunFailed(f"{self.url}: does not respond ({said})") from None
            time.sleep(wait or 0.0)
        raise AssertionError("the last try returns or raises")


def _prompt_tokens(choice: Mapping[str, Any]) -> tuple[list[Any] | None, list[int] | None]:
    """Log-probs and offsets of an echoed prompt's tokens, and of the generated one behind them."""
    found = choice.get("logprobs")
    if not isinstance(found, Mapping):
        return None, None
    logps, offsets = found.get("token_logprobs"), found.get("text_offset")
    if not isinstance(logps, list) or not isinstance(offsets, list) or len(logps) != len(offsets) or len(logps) < 2:
        return None, None
    if not all(isinstance(offset, int) for offset in offsets) or sorted(offsets) != offsets:
        return None, None
    return logps, offsets


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says of a request that it refused."""
    try:
        said = json.loads(error.read(1 << 20))
        found = said.get("error", said)
        found = found if isinstance(found, Mapping) else {"message": found}
        return one_line(found.get("message") or found.get("detail") or error.reason) + f" (HTTP {error.code})"
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return f"{one_line(error.reason)} (HTTP {error.code})"
