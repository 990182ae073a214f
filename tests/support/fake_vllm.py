"""A vLLM server small enough for a test: its API over http.server, its answers from a real model with the adapters it was given."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from markovlm.config.model import Loading
from markovlm.models.load import LanguageModel, load_model
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Decoding, SampleRequest
from support.local_server import Handler, LocalServer


class FakeVllm(LocalServer):
    """`with FakeVllm(model, dtype) as server: server.url`. What it must do wrong is set on it."""

    def __init__(self, model: Path | str, dtype: str = "float32"):
        self.model, self.loading = str(model), Loading(device="cpu", dtype=dtype)  # pyright: ignore[reportArgumentType]
        self.known: dict[str, LanguageModel] = {"base": load_model(self.model, self.loading)}
        self.loaded: list[str] = []  # every adapter that it was given, by name
        self.asked: list[dict[str, Any]] = []  # bodies of the completions
        self.dies_after: int | None = None  # completions
        self.takes_adapters = True
        self.ignores_adapters = False
        self.deaf = False  # new adapters are not read: their names stand for the last one
        self.temperature: float | None = None  # that of its log-probs, whatever was asked for
        self.lock = threading.Lock()
        fake = self

        class Answering(Handler):
            def do_GET(self) -> None:
                served = [{"id": name, "parent": None if name == "base" else "base"} for name in fake.known]
                self.reply(200, json.dumps({"data": served}).encode())

            def do_POST(self) -> None:
                body = self.asked()
                with fake.lock:
                    found = fake.answer(self.path, body)
                if found is None:
                    self.close_connection = True
                    self.connection.close()
                else:
                    code, answer = found
                    self.reply(code, json.dumps(answer).encode())

        super().__init__(Answering)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        if path == "/v1/completions":
            return self.complete(body)
        if not self.takes_adapters:
            return 404, {"detail": "Not Found"}
        name = body["lora_name"]
        if path == "/v1/unload_lora_adapter":
            return (200, "ok") if self.known.pop(name, None) else (404, {"error": {"message": f"no {name}"}})
        path = Path(body["lora_path"])
        self.known[name] = self.known[self.loaded[-1]] if self.deaf else load_model(self.model, self.loading, adapter=path)
        self.loaded.append(name)
        return 200, "ok"

    def complete(self, body: dict[str, Any]) -> tuple[int, Any] | None:
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            return None
        self.asked.append(body)
        lm = self.known.get("base" if self.ignores_adapters else body["model"])
        if lm is None:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        decoding = Decoding(
            body["max_tokens"],
            body["temperature"] if self.temperature is None else self.temperature,
            body["min_tokens"] == body["max_tokens"],
            tuple(body["stop"]),
        )
        ((cot,),) = HFSampler(lm).sample([SampleRequest(tuple(body["prompt"]), (("server", body["seed"]),))], decoding)
        reason = "stop" if cot.ended else "length"
        choice = {"token_ids": cot.tokens, "logprobs": {"token_logprobs": cot.behavior_logp}, "finish_reason": reason}
        return 200, {"choices": [choice]}
