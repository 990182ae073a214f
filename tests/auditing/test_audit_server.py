"""A reader behind a server gives the numbers of the same model read here; a server that misbehaves ends the command in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from markovlm.api.auditing import audit, audit_request, preview
from markovlm.auditing import endpoint
from markovlm.cli.main import main
from markovlm.errors import RunFailed, UserError
from support.fake_openai import FakeOpenAI

ROWS = [
    {"question": f"What is {a}+{b}?", "cot": f"{a} and {b} make {a + b}. So it is <|im_end|> {a + b}.", "answer": str(a + b)}
    for a, b in ((2, 3), (4, 5), (6, 1), (7, 8), (1, 1))
]


@pytest.fixture(scope="module")
def server(tiny_models: dict[str, Path]) -> Iterator[FakeOpenAI]:
    with FakeOpenAI(tiny_models["llama"]) as fake:
        yield fake


@pytest.fixture(autouse=True)
def well_behaved(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    server.raw, server.code, server.busy, server.slow, server.template, server.max_model_len = None, 200, 0, 0.0, None, 4096
    server.asked.clear()
    monkeypatch.setattr(endpoint, "_WAITS", (0.01, 0.01))


@pytest.fixture
def cots(tmp_path: Path) -> Path:
    return write(tmp_path / "c.jsonl", ROWS)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_its_numbers_are_those_of_the_model_itself(server: FakeOpenAI, tiny_models: dict[str, Path], cots: Path) -> None:
    """A token of the tiny model is a character, as is one on this side of a server: then every study must come to the same."""
    plain = [{**row, "cot": row["cot"].replace("<|im_end|> ", "")} for row in ROWS]
    file = write(cots.parent / "plain.jsonl", plain)
    how = {"perturbations": ["delete", "truncate_back"], "severities": [0.6], "config": {"loading": {"device": "cpu"}}}
    ours = audit(file, str(tiny_models["llama"]), out=cots.parent / "ours", **how)
    theirs = audit(file, server.url, out=cots.parent / "theirs", **how)
    assert theirs["readers"][0]["model"] == "tiny"
    for group in (ours, theirs):
        group["groups"][0]["readers"][0].pop("reader")
    assert _numbers(theirs["groups"]) == pytest.approx(_numbers(ours["groups"]), abs=1e-4)
    for study in ("damage", "leak", "load"):
        found, expected = (_numbers(result["studies"][study]) for result in (theirs, ours))
        assert found == pytest.approx(expected, abs=1e-4)
        assert len(expected) > 5


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key, one in sorted(value.items()) if key != "seed" for number in _numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_again_nothing_is_asked_twice(server: FakeOpenAI, cots: Path) -> None:
    result = audit(cots, server.url, only=["leak"])
    asked = len(server.asked)
    assert asked > 10
    assert audit(cots, server.url, only=["leak"]) == result
    assert len(server.asked) == asked


def test_a_text_cannot_end_its_turn(server: FakeOpenAI, cots: Path) -> None:
    """The model's own template, asked for once; what looks like a special token in question or CoT is text."""
    server.template = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    result = audit(cots, server.url, only=[])
    assert result["readers"][0]["prompt_style"] == "chat"
    prompts = [body["prompt"] for body in server.asked]
    assert all(prompt.startswith("<|im_start|>user\nYou will be given") for prompt in prompts)
    scored, answered = ([body["prompt"] for body in server.asked if bool(body.get("echo")) == echo] for echo in (True, False))
    assert all(prompt.count("<|im_end|>") == 1 for prompt in answered)
    assert {prompt.rpartition("Answer:")[2] for prompt in scored} == {f" {row['answer']}<|im_end|>" for row in ROWS}
    assert any("So it is < |im_end|>" in prompt for prompt in prompts)
    assert all(body["add_special_tokens"] is False for body in server.asked)


@pytest.mark.parametrize(
    ("written", "reason", "read"), [(" 12", "length", None), (" 12", "stop", "12"), (" 12\nQuestion: 2", "length", "12")]
)
def test_a_number_that_the_limit_cut_is_no_answer(
    server: FakeOpenAI, cots: Path, monkeypatch: pytest.MonkeyPatch, written: str, reason: str, read: str | None
) -> None:
    complete = server.complete

    def answers(body: dict[str, Any]) -> dict[str, Any]:
        return complete(body) if body.get("echo") else {"choices": [{"text": written, "finish_reason": reason}]}

    monkeypatch.setattr(server, "complete", answers)
    audit(cots, server.url, out=cots.parent / "out", only=[])
    rows = [json.loads(line) for file in cots.parent.rglob("readings-*.jsonl") for line in file.read_text().splitlines()]
    assert {row["extracted"] for row in rows if row["answer"] is not None} == {read}


def test_one_of_several_models_and_none_of_that_name(server: FakeOpenAI, cots: Path) -> None:
    assert audit(cots, f"{server.url}/v1#other", only=[])["readers"][0]["model"] == "other"
    with pytest.raises(UserError, match="serves tiny, other, not 'gpt-9'"):
        audit(cots, f"{server.url}#gpt-9", only=[])


def test_what_does_not_fit_is_left_out(server: FakeOpenAI, cots: Path) -> None:
    server.max_model_len = 150
    write(cots, [*ROWS, {**ROWS[0], "cot": "x" * 1000}])
    assert audit(cots, server.url, only=[])["readers"][0]["too_long"] == 1


def test_a_server_that_is_busy_is_asked_again(server: FakeOpenAI, cots: Path) -> None:
    server.busy = 2
    assert audit(cots, server.url, only=[])["groups"][0]["readers"][0]["n"] == 5


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"<html>", "is not JSON"),
        (b"[1]", "is not a completion of the OpenAI API"),
        (b'{"choices": [{"text": "x"}]}', "returns no log-probs of the prompt"),
        (
            b'{"choices": [{"logprobs": {"token_logprobs": [null, -1], "text_offset": [0]}}]}',
            "returns no log-probs of the prompt",
        ),
        (
            b'{"choices": [{"logprobs": {"token_logprobs": [null, "x", -1], "text_offset": [0, 1, 2]}}]}',
            "its log-probs are not numbers",
        ),
    ],
)
def test_wrong_answers_are_one_line(server: FakeOpenAI, cots: Path, raw: bytes, says: str) -> None:
    server.raw = raw
    with pytest.raises(RunFailed, match=says) as caught:
        audit(cots, server.url, only=[])
    assert "\n" not in str(caught.value)


def test_slow_huge_refused_and_absent_servers_are_one_line(
    server: FakeOpenAI, cots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(address: str, code: int) -> str:
        assert main(["audit", str(cots), "--reader", address, "--only", "leak"]) == code
        error = capsys.readouterr().err
        [line] = [line for line in error.splitlines() if line.startswith("markovlm:")]
        return line

    monkeypatch.setattr(endpoint, "MOST_BYTES", 10_000)
    server.raw = b'{"x": "' + b"y" * 20_000 + b'"}'
    assert "is larger than" in says(server.url, 1)
    server.raw, server.code = None, 404
    assert "/v1/completions failed: no such model (HTTP 404)" in says(server.url, 1)
    server.code, server.slow = 200, 0.4
    monkeypatch.setattr(endpoint, "_PATIENCE", 0.1)
    assert "does not respond" in says(server.url, 1)
    server.slow = 0.0
    monkeypatch.setattr(endpoint, "_PATIENCE", 600.0)
    assert "does not respond" in says("http://127.0.0.1:9", 2)
    assert "is not an address" in says("http://", 2)
    assert "is not an address" in says("http://[::1", 2)
    monkeypatch.setattr(endpoint, "_PATIENCE", 600.0)
    assert main(["audit", str(cots), "--reader", server.url, "--perturbations", "token_replace"]) == 2
    assert "perturbs tokens, but those of a server's reader are unknown here" in capsys.readouterr().err


def test_what_a_server_would_read_is_said_before(tiny_models: dict[str, Path], cots: Path) -> None:
    with FakeOpenAI(tiny_models["llama"]) as fresh:
        found = preview(audit_request([cots], [fresh.url]))
        assert found["readers"][0]["tokens"] > 100
        assert fresh.asked == []
