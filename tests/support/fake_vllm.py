"""A vLLM server small enough for a test: its API over http.server, its answers from a real model with the adapters it was given."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from markovlm.config.model import Loading
from markovlm.models.load import LanguageModel, load_model
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Decoding, SampleRequest


class FakeVllm:
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

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served = [{"id": name, "parent": None if name == "base" else "base"} for name in fake.known]
                self.reply(200, {"data": served})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake.lock:
                    found = fake.answer(self.path, body)
                if found is None:
                    self.close_connection = True
                    self.connection.close()
                else:
                    self.reply(*found)

            def reply(self, code: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None: ...

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> FakeVllm:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

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
