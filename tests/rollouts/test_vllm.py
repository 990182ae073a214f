"""vLLM itself (`make test-vllm`): in the trainer's process, and as a server that is killed. The embedded model, float32, on the CPU."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from markovlm.errors import RunFailed
from markovlm.models.load import LanguageModel
from markovlm.models.logprobs import token_stats
from markovlm.models.registry import resolve
from markovlm.models.sequences import batch_of, span_hidden
from markovlm.rollouts.types import CoT, Decoding, Sampler, SampleRequest, SamplerPlace
from markovlm.runs.ahead import resumed_config
from markovlm.runs.directory import RunDirectory
from markovlm.training.loop import train
from markovlm.training.state import Silent
from support import runs, tiny

here = importlib.util.find_spec("vllm") is not None
pytestmark = [pytest.mark.vllm, pytest.mark.long, pytest.mark.skipif(not here, reason="vLLM is not installed: make test-vllm")]
CPU = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
}
GAP = 1e-4  # mean abs difference of a token's log-prob, nats; measured: docs/samplers.md
PROMPTS = ((1, 5, 9, 6, 7, 12), (1, 8, 9, 10))
DECODINGS = [Decoding(12, 1.0), Decoding(9, 0.6, fixed_length=True), Decoding(12, 1.4, stop=("=", "2")), Decoding(8, 0.0)]


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CPU.items():
            patch.setenv(name, value)
        yield


def config(**keys: Any) -> Any:
    small = {"training__steps": 4, "rollouts__max_cot_tokens": 12, "rollouts__group_size": 4, "lora__rank": 8, "lora__alpha": 16}
    return tiny.config("embedded", loading__dtype="float32", **{**small, **keys})


def requests(streams: int = 8) -> list[SampleRequest]:
    return [SampleRequest(prompt, tuple(("draw", at, i) for i in range(streams))) for at, prompt in enumerate(PROMPTS)]


def gap(lm: LanguageModel, sampler: Sampler, decoding: Decoding) -> float:
    """Mean abs difference of log-probs, sampler and trainer; the CoTs are what the decoding allows."""
    groups = sampler.sample(requests(), decoding)
    cots = [(prompt, cot) for prompt, group in zip(PROMPTS, groups, strict=True) for cot in group]
    for _, cot in cots:
        _allowed(lm, cot, decoding)
    span = span_hidden(lm, batch_of([(prompt, cot.tokens, 0) for prompt, cot in cots]), "padded")
    banned = torch.tensor(lm.terminators if decoding.fixed_length else (), dtype=torch.long)
    scored = token_stats(lm, span.hidden, span.targets, temperature=decoding.temperature or 1.0, banned=banned).logp
    sampled = torch.tensor([logp for _, cot in cots for logp in cot.behavior_logp])
    if decoding.temperature:
        assert len({cot.tokens for _, cot in cots}) > 4
    return (sampled - scored.detach()).abs().mean().item()


def _allowed(lm: LanguageModel, cot: CoT, decoding: Decoding) -> None:
    ends = [token in lm.terminators for token in cot.tokens]
    assert len(cot.tokens) == decoding.max_tokens or cot.ended
    if decoding.fixed_length:
        assert not any(ends)
    else:
        assert not any(ends[:-1])
    kept = lm.tokenizer.decode(list(cot.ids))
    assert not any(stop in kept for stop in decoding.stop)


def test_vllm_in_the_process(tmp_path: Path) -> None:
    """Log-probs at every decoding, before and after an update, and without the adapter; then a run. One engine: it takes long to start."""
    from markovlm.rollouts.engine import build_vllm

    lm = tiny.load("embedded", dtype="float32", shaken=True)  # type: ignore[arg-type]
    sampler = build_vllm(SamplerPlace(lm, config(rollouts__backend="vllm"), tmp_path / "adapters"))
    found = {str(decoding): gap(lm, sampler, decoding) for decoding in DECODINGS}
    again = sampler.sample(requests(), DECODINGS[0])
    assert again == sampler.sample(requests(), DECODINGS[0])  # seeds of their own
    tiny.shake(lm, seed=11)
    found["after an update"] = gap(lm, sampler, DECODINGS[0])
    with lm.frozen():
        found["the base"] = gap(lm, sampler, DECODINGS[0])
    print(found)
    assert max(found.values()) < GAP, found
    assert found["the base"] > 0 or found["after an update"] > 0  # other arithmetic
    sampler.close()
    assert not (tmp_path / "adapters").exists()


def test_a_run_in_the_process(tmp_path: Path) -> None:
    train(config(rollouts__backend="vllm", training__eval_every=4, lora__dropout=0.1), tmp_path / "run")
    rows = runs.rows(tmp_path / "run", "metrics.jsonl")
    print([(row["sampler_gap"], row["sampler_gap_max"], row["sampler_kl"]) for row in rows])
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(0 <= row["sampler_gap"] < GAP for row in rows)
    assert runs.rows(tmp_path / "run", "evals.jsonl")[-1]["step"] == 4


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts `vllm serve` of the embedded model on a free port; every one is ended afterwards."""
    running: list[subprocess.Popen[bytes]] = []

    def serve() -> tuple[subprocess.Popen[bytes], str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        sizes = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "256"]
        adapters = ["--enable-lora", "--max-lora-rank", "8", "--logprobs-mode", "processed_logprobs"]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve("embedded"))]
        command += ["--host", "127.0.0.1", "--port", str(port), *sizes, *adapters]
        log = open(tmp_path / f"server-{port}.log", "wb")  # noqa: SIM115
        running.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **CPU}))
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while time.monotonic() < until and running[-1].poll() is None:
            try:
                urllib.request.urlopen(url + "/health", timeout=5).close()
                return running[-1], url
            except OSError:
                time.sleep(1)
        raise AssertionError((tmp_path / f"server-{port}.log").read_text()[-3000:])

    yield serve
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_killed_in_a_step(start: Any, tmp_path: Path) -> None:
    """It trains; killed in the middle it costs that step and one line; a new one goes on, and nothing is left of the adapters."""
    process, url = start()

    class KillInTheThird(Silent):
        def step(self, row: dict[str, Any]) -> None:
            if row["step"] == 2:
                os.killpg(process.pid, signal.SIGKILL)

    run = tmp_path / "run"
    with pytest.raises(RunFailed, match=r"the server does not respond .*--resume") as failed:
        train(config(rollouts__backend="server", rollouts__server_url=url), run, progress=KillInTheThird())
    print(failed.value)
    assert "\n" not in str(failed.value)
    assert RunDirectory(run).saved_steps() == [0, 2]
    _, other = start()
    train(resumed_config(run, {"rollouts": {"server_url": other}}), run, resume=True)
    rows = runs.rows(run, "metrics.jsonl")
    print([(row["sampler_gap"], row["sampler_gap_max"]) for row in rows])
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["sampler_gap"] < GAP for row in rows)
    assert not (run / ".sampler.tmp").exists()
