"""CoTs from a vLLM server (a small one, tests/support/fake_vllm.py): the same distribution, the present adapter, one line where it fails."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from markovlm.cli import main
from markovlm.config import build_config
from markovlm.errors import RunFailed, UserError
from markovlm.models.load import LanguageModel
from markovlm.rollouts import server
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.server import ServerSampler
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.runs.ahead import resumed_config
from markovlm.runs.directory import RunDirectory
from markovlm.training.loop import train
from support import runs, tiny
from support.fake_vllm import FakeVllm

PROMPTS = ((1, 20, 21, 22), (1, 30, 31))
FREE = Decoding(8, 1.0)


@pytest.fixture
def fake(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVllm]:
    monkeypatch.setattr(server, "_WAITS", (0.01,))
    with FakeVllm(tiny_models["llama"]) as running:
        yield running


@pytest.fixture
def lm(tiny_models: dict[str, Path]) -> LanguageModel:
    return tiny.load(tiny_models["llama"], dtype="float32", shaken=True)


def requests() -> list[SampleRequest]:
    return [SampleRequest(prompt, tuple((0, "cot", 1, f"q{at}", i) for i in range(3))) for at, prompt in enumerate(PROMPTS)]


def on_server(fake: FakeVllm, **keys: Any) -> dict[str, Any]:
    return {"loading__dtype": "float32", "rollouts__backend": "server", "rollouts__server_url": fake.url, **keys}


# ------------------------------------------------------------------------------------------------------- one call


@pytest.mark.parametrize(
    "decoding", [FREE, Decoding(6, 0.7, fixed_length=True), Decoding(6, 1.3, stop=("e", "a")), Decoding(5, 0.0)], ids=str
)
def test_it_draws_what_the_trainers_sampler_would(fake: FakeVllm, lm: LanguageModel, tmp_path: Path, decoding: Decoding) -> None:
    """The same CoTs where the streams are those of the seeds that it was sent."""
    sampler = ServerSampler(lm, fake.url + "/", tmp_path)
    drawn = sampler.sample(requests(), decoding)
    seeds = {(tuple(body["prompt"]), body["seed"]): None for body in fake.asked}
    assert len(seeds) == 6  # one of its own for each CoT
    keys = [tuple(("server", server.torch_seed(*key)) for key in request.streams) for request in requests()]
    again = HFSampler(lm).sample([SampleRequest(r.prompt, k) for r, k in zip(requests(), keys, strict=True)], decoding)
    for ours, theirs in zip(drawn, again, strict=True):
        assert [(cot.tokens, cot.kept, cot.ended) for cot in ours] == [(cot.tokens, cot.kept, cot.ended) for cot in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.behavior_logp == pytest.approx(other.behavior_logp, abs=1e-5)


def test_the_adapter_goes_over_once_for_its_weights_and_the_base_without(
    fake: FakeVllm, lm: LanguageModel, tmp_path: Path
) -> None:
    sampler = ServerSampler(lm, fake.url, tmp_path)
    sampler.step = 7
    sampler.sample(requests(), FREE)
    sampler.sample(requests(), FREE)
    with lm.frozen():
        sampler.sample(requests(), FREE)
    (name,) = fake.loaded
    assert "-step-000007-" in name
    assert [body["model"] for body in fake.asked] == [name] * 12 + ["base"] * 6
    tiny.shake(lm, seed=9)
    sampler.sample(requests(), FREE)
    assert len(fake.loaded) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == fake.loaded[1:]  # the old one is gone from the disk
    assert set(fake.known) == {"base", fake.loaded[1]}  # and from the server
    sampler.close()
    assert set(fake.known) == {"base"}
    assert list(tmp_path.iterdir()) == []  # a directory that was there stays


def test_a_server_that_goes_on_behind_the_end_is_cut(lm: LanguageModel) -> None:
    from markovlm.rollouts.ends import cut_off

    end = lm.terminators[0]
    logps = [-1.0, -2.0, -3.0, -4.0]
    assert cut_off(lm, [5, end, 6, 7], logps, FREE).tokens == (5, end)
    assert cut_off(lm, [5, end, 6, 7], logps, Decoding(4, 1.0, fixed_length=True)).tokens == (5, end, 6, 7)
    text = lm.tokenizer.decode([40, 41, 42, 43])
    stopped = cut_off(lm, [40, 41, 42, 43], logps, Decoding(4, 1.0, stop=(text[1:3],)))
    assert (stopped.tokens, stopped.kept, stopped.ended) == ((40, 41, 42), 1, True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"choices": []}, "no tokens with log-probs"),
        ({"choices": [{"token_ids": [1], "logprobs": None}]}, "no tokens with log-probs"),
        ({"choices": [{"token_ids": [10**6], "logprobs": {"token_logprobs": [-1.0]}}]}, "no tokens with log-probs"),
        ({"choices": [{"token_ids": [40], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "x\x1b[2J"}]}, r"\(x�\[2J\)"),
        ("hello", "no tokens with log-probs"),
        ({"choices": [{"token_ids": [40], "logprobs": {"token_logprobs": [float("nan")]}}]}, "no tokens with log-probs"),
        ({"choices": [{"token_ids": [40], "logprobs": {"token_logprobs": [True]}}]}, "no tokens with log-probs"),
    ],
)
def test_answers_that_are_none_are_one_line(
    fake: FakeVllm, lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    sampler = ServerSampler(lm, fake.url, tmp_path)
    monkeypatch.setattr(fake, "complete", lambda body: (200, answer))
    with pytest.raises(RunFailed, match=said) as failed:
        sampler.sample(requests(), FREE)
    assert "\n" not in str(failed.value)
    assert "\x1b" not in str(failed.value)


class Raw:
    """A server that answers every connection with what `talk` sends."""

    def __init__(self, talk: Callable[[socket.socket], None]):
        self.talk = talk
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.seen = 0

    def __enter__(self) -> Raw:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                self.seen += 1
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            self.talk(connection)


def drip(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(600):
            connection.sendall(piece)
            time.sleep(0.02)

    return talk


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"[")
    while True:
        connection.sendall(b"0," * 50_000)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
TALKS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "a byte now and then": (drip(HEAD, b" "), "no complete response within 0.5 seconds"),
    "headers without end": (
        drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        "no complete response within 0.5 seconds|more than 100 headers",
    ),
    "silence": (drip(b"", b""), "no complete response within 0.5 seconds"),
    "without end": (flood, "a response of more than 0 MB"),
    "cut off": (lambda c: c.sendall(HEAD + b"{"), "IncompleteRead"),
    "no HTTP": (lambda c: c.sendall(b"SSH-2.0-OpenSSH\r\n"), "does not respond"),
    "elsewhere": (
        lambda c: c.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/x\r\nContent-Length: 0\r\n\r\n"),
        r"Found \(HTTP 302\)",
    ),
    "an error page": (
        lambda c: c.sendall(b'HTTP/1.1 500 No\r\nConnection: close\r\n\r\n{"error": {"message": "\x1b[2Jno\\nmore"}}'),
        r"Internal Server Error \(HTTP 500\)",
    ),
    "too deep": (lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"[" * 100_000), "not a vLLM server"),
}


@pytest.mark.parametrize("how", TALKS)
def test_a_server_that_answers_slowly_hugely_or_wrongly_is_one_line(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    talk, said = TALKS[how]
    monkeypatch.setattr(server, "_PATIENCE", 0.5)
    monkeypatch.setattr(server, "_WAITS", (0.01,))
    monkeypatch.setattr(server, "_MOST_ANSWER", 1 << 18)
    with Raw(talk) as raw, pytest.raises(UserError, match=said) as refused:
        ServerSampler(lm, raw.url, tmp_path)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert raw.seen == (2 if how in ("cut off", "no HTTP") else 1)  # what another try can't mend is not tried again


# ------------------------------------------------------------------------------------------------------- a run


def test_a_run_with_a_server_trains_as_one_without(fake: FakeVllm, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    keys = {"training__steps": 3, "training__eval_every": 3, "objective__baseline_every": 2, "lora__dropout": 0.1}
    train(tiny.config(tiny_models["llama"], **on_server(fake, **keys)), tmp_path / "run")
    rows = runs.rows(tmp_path / "run", "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["sampler_gap"] < 1e-5 and row["sampler_gap_max"] < 1e-4 for row in rows)  # without dropout's noise
    assert all(row["behavior_gap"] == 0 or row["behavior_gap"] > 1e-3 for row in rows)
    assert all(row["importance_truncated"] == 0 and row["sampler_ratio_max"] == 1 for row in rows)  # off below rounding
    steps = [name.split("-")[3] for name in fake.loaded]
    assert {"000000", "000001", "000002"} == set(steps)
    assert set(fake.known) == {"base"}
    assert not (tmp_path / "run" / ".sampler.tmp").exists()
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "backend: server" in saved
    assert "importance: token" in saved


def test_a_server_killed_in_a_step_costs_that_step(fake: FakeVllm, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    asked_at_start = 16  # the check: two questions of four CoTs each, for one or two scales of the adapter
    keys = {"training__steps": 5, "training__checkpoint_every": 50, "objective__normalize_reward": False}
    fake.dies_after = asked_at_start + 4 * 2 + 2  # in the middle of the third or a later step
    with pytest.raises(RunFailed, match=r"server does not respond .*--resume") as failed:
        train(tiny.config(tiny_models["llama"], **on_server(fake, **keys)), run)
    assert "\n" not in str(failed.value)
    assert len(str(failed.value)) < 200
    done = [row["step"] for row in runs.rows(run, "metrics.jsonl")]
    assert done == list(range(1, len(done) + 1))
    assert 0 < len(done) < 5
    assert RunDirectory(run).saved_steps() == [0, len(done)]  # finished work is kept
    assert runs.rows(run, "events.jsonl")[-1]["kind"] in ("failed", "checkpoint")
    with FakeVllm(tiny_models["llama"]) as other:  # started again, elsewhere
        result = train(resumed_config(run, {"rollouts": {"server_url": other.url}}), run, resume=True)
    assert result.steps == 5
    assert [row["step"] for row in runs.rows(run, "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_a_server_that_ignores_the_adapter_is_caught_at_the_start(
    fake: FakeVllm, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    fake.ignores_adapters = True
    with pytest.raises(RunFailed, match=r"adapter is not applied.*processed_logprobs; nothing was trained"):
        train(tiny.config(tiny_models["llama"], **on_server(fake)), tmp_path / "run")
    assert set(fake.known) == {"base"}
    assert not (tmp_path / "run").exists()


def test_logprobs_at_another_temperature_are_caught(fake: FakeVllm, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    fake.temperature = 1.0
    with pytest.raises(RunFailed, match=r"the temperature differs.*--logprobs-mode processed_logprobs"):
        train(tiny.config(tiny_models["llama"], **on_server(fake, rollouts__temperature=1.3)), tmp_path / "run")


@pytest.mark.parametrize("lr", [1e-2, 1e-5])
def test_an_adapter_that_was_not_received_is_caught_at_its_push(
    fake: FakeVllm, tiny_models: dict[str, Path], tmp_path: Path, lr: float
) -> None:
    """Also where the steps are so small that the gap is far below the tolerance."""
    config = tiny.config(tiny_models["llama"], **on_server(fake, training__lr=lr, rollouts__group_size=8))

    class Watch(runs.Silent):
        def step(self, row: dict[str, Any]) -> None:
            fake.deaf = row["step"] == 2

    with pytest.raises(RunFailed, match=r"step 3: .*still has the adapter of the previous step.*--resume"):
        train(config, tmp_path / "run", progress=Watch())
    assert len(runs.rows(tmp_path / "run", "metrics.jsonl")) == 2


def test_an_adapter_swapped_under_the_sampler_is_caught(fake: FakeVllm, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Somebody puts other weights under the present name, between hand-over and sampling."""
    config = tiny.config(tiny_models["llama"], **on_server(fake, rollouts__group_size=4))
    other = tiny.load(tiny_models["llama"], dtype="float32", shaken=True, seed=5)
    taken = fake.answer

    def swapped(path: str, body: dict[str, Any]) -> Any:
        found = taken(path, body)
        if path == "/v1/load_lora_adapter" and "-step-000001-" in body["lora_name"]:
            fake.known[body["lora_name"]] = other
        return found

    fake.answer = swapped  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match=r"step 2: .*its adapter, temperature or precision differs"):
        train(config, tmp_path / "run")


def test_an_adapter_taken_from_the_server_is_one_line(fake: FakeVllm, lm: LanguageModel, tmp_path: Path) -> None:
    sampler = ServerSampler(lm, fake.url, tmp_path)
    sampler.sample(requests(), FREE)
    fake.known.pop(fake.loaded[0])
    with pytest.raises(RunFailed, match=r"/v1/completions failed: The model .* does not exist\. \(HTTP 404\)"):
        sampler.sample(requests(), FREE)


# ------------------------------------------------------------------------------------------------------- wrong input


def test_a_server_without_adapters_says_how_to_start_it(fake: FakeVllm, lm: LanguageModel, tmp_path: Path) -> None:
    fake.takes_adapters = False
    with pytest.raises(RunFailed, match=r"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora"):
        ServerSampler(lm, fake.url, tmp_path / "adapters").sample(requests(), FREE)
    assert list((tmp_path / "adapters").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rollouts.server_url", "http://127.0.0.1:9"], "rollouts.server_url http://127.0.0.1:9: the server does not respond"),
        (["--rollouts.server_url", "localhost:8000"], "is not an address such as http://HOST:8000"),
        ([], "backend=server needs server_url"),
    ],
)
def test_no_server_is_one_line_and_exit_code_two(
    flags: list[str], said: str, tiny_models: dict[str, Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_WAITS", (0.01,))
    out = tmp_path / "run"
    command = ["train", "--model", str(tiny_models["llama"]), "--rollouts.backend", "server", "--out", str(out), *flags]
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.strip().splitlines()) == 1
    assert not out.exists()


def test_keys_without_effect_are_refused() -> None:
    with pytest.raises(UserError, match="must be an address without user, password or parameters") as refused:
        build_config({"rollouts": {"backend": "server", "server_url": "http://me:secret@x:8000"}})
    assert "secret" not in str(refused.value)
    for keys in ({"server_url": "http://x"}, {"adapter_dir": "x"}, {"backend": "vlm"}, {"importance_cap": 0.5}):
        with pytest.raises(UserError, match=r"rollouts"):
            build_config({"rollouts": keys})
    with pytest.raises(UserError, match=r"no sampler 'servr' \(did you mean 'server'\?\)"):
        build_config({"rollouts": {"backend": "servr"}})


def test_an_adapter_directory_of_ones_own(fake: FakeVllm, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    seen: list[str] = []
    taken = fake.answer
    fake.answer = lambda path, body: seen.append(body.get("lora_path", "")) or taken(path, body)  # type: ignore[method-assign]
    keys = on_server(fake, training__steps=1, rollouts__adapter_dir=str(tmp_path / "shared"))
    train(tiny.config(tiny_models["llama"], **keys), tmp_path / "run", check=False)
    assert {str(Path(path).parent) for path in seen if path} == {str(tmp_path / "shared")}
    assert not (tmp_path / "shared").exists()
