"""An OpenAI-compatible server small enough for a test, as vLLM is one: log-probs of the prompt by `echo`, /tokenize and /detokenize."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import torch

from markovlm.config.model import Loading
from markovlm.models.load import load_model
from support.local_server import Handler, LocalServer


class FakeOpenAI(LocalServer):
    """`with FakeOpenAI(model) as server: server.url`. What it must do wrong is set on it."""

    def __init__(self, model: Path):
        self.lm = load_model(str(model), Loading(device="cpu"))  # pyright: ignore[reportCallIssue]
        self.template: tuple[str, str] | None = None  # a chat template's text before and behind the user's words
        self.asked: list[dict[str, Any]] = []
        self.raw: bytes | None = None  # is answered instead of a completion
        self.code = 200
        self.busy = 0  # so many answers are "try later" first
        self.slow = 0.0  # seconds
        self.max_model_len: int | None = 4096
        self.lock = threading.Lock()
        fake = self

        class Answering(Handler):
            def do_GET(self) -> None:
                model = {"id": "tiny"} | ({"max_model_len": fake.max_model_len} if fake.max_model_len else {})
                self.reply(200, json.dumps({"data": [model, {"id": "other"}]}).encode())

            def do_POST(self) -> None:
                body = self.asked()
                time.sleep(fake.slow)
                with fake.lock:
                    self.reply(*fake.answer(self.path, body))

        super().__init__(Answering)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if self.busy:
            self.busy -= 1
            return 503, b'{"error": {"message": "busy"}}'
        if path in ("/tokenize", "/detokenize"):
            return self.tokenizer(path, body)
        self.asked.append(body)
        if self.raw is not None or self.code != 200:
            return self.code, self.raw or b'{"error": {"message": "no such model"}}'
        return 200, json.dumps(self.complete(body)).encode()

    def tokenizer(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Tokens are the characters' numbers."""
        if self.template is None:
            return 404, b'{"detail": "Not Found"}'
        if path == "/detokenize":
            return 200, json.dumps({"prompt": "".join(map(chr, body["tokens"]))}).encode()
        said, *replies = (message["content"] for message in body.get("messages", [{"content": ""}]))
        text = body.get("prompt") or self.template[0] + said + self.template[1] + "".join(
            f"{reply}<|im_end|>\n" for reply in replies
        )
        return 200, json.dumps({"tokens": [ord(c) for c in text], "count": len(text)}).encode()

    @torch.no_grad()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        lm, text = self.lm, body["prompt"]
        ids = lm.tokenizer(text, add_special_tokens=body.get("add_special_tokens", True))["input_ids"]
        given = len(ids)
        logps: list[float | None] = [None]
        for _ in range(body["max_tokens"]):
            log_p = lm.causal_lm(torch.tensor([ids])).logits[0].log_softmax(-1)
            logps = [None, *(float(log_p[i - 1, ids[i]]) for i in range(1, len(ids))), float(log_p[-1].max())]
            ids.append(int(log_p[-1].argmax()))
            if ids[-1] in lm.terminators:
                break
        written = lm.tokenizer.decode([token for token in ids[given:] if token not in lm.terminators])
        if not body.get("echo"):
            return {"choices": [{"text": written, "finish_reason": "stop" if ids[-1] in lm.terminators else "length"}]}
        pieces = [lm.tokenizer.decode([token]) for token in ids]  # that of <bos> has five characters
        offsets = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
        return {
            "choices": [
                {"text": text + written, "logprobs": {"tokens": pieces, "token_logprobs": logps, "text_offset": offsets}}
            ],
            "usage": {"prompt_tokens": given},
        }
