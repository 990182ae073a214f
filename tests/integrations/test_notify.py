"""One message a change, to people: what is sent, how often, and that no secret is said."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.integrations import notify
from markovlm.integrations import post as posting
from markovlm.integrations.notify import LONGEST_WAIT, SERVICES, Notifier, channels_of, check, message_of, text_of
from support.hooks import CERTIFICATE, Hook

CHANGE = {
    "path": "out/run.jsonl", "run": "run", "before": "healthy", "verdict": "collapsed", "onset_step": 1040, "last_step": 1100,
    "why": "the reward crashed: reward 0 at step 1,040", "cost": {"lines": ["61 of 1,100 steps since step 1,040: 6 % of the steps"]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "public_addresses", lambda _: ["127.0.0.1"])
    monkeypatch.setattr(notify, "public_addresses", lambda _: ["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def sent(hook: Hook, service: str, change: dict[str, Any] = CHANGE, **more: str) -> tuple[list[str], list[float]]:
    """Notes and pauses of one message."""
    notes: list[str] = []
    pauses: list[float] = []
    variable = SERVICES[service].variable
    sender = Notifier(channels_of([service], {variable: hook.url, **more}), notes.append, pauses.append)
    sender.send(change)
    sender.close()
    assert "SECRET" not in " ".join(notes)
    return notes, pauses


@pytest.mark.parametrize("service", [*SERVICES])
def test_one_message_reaches_each_service(service: str) -> None:
    with Hook() as hook:
        assert sent(hook, service) == ([], [])
    [(path, headers, body)] = hook.heard
    assert path == "/services/T0/SECRET"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("markovlm/")
    text = body["content" if service == "discord" else "text"].replace("\\", "")
    first, why, cost = text.split("\n")
    assert first.startswith("collapsed (was healthy): out/run.jsonl at step 1,100 on ")
    assert first.endswith(", since step 1,040")
    assert why == CHANGE["why"]
    assert cost == "cost: 61 of 1,100 steps since step 1,040: 6 % of the steps"
    if service == "webhook":
        assert {key: body[key] for key in CHANGE} == CHANGE
        assert headers["Idempotency-Key"] == body["id"]


def test_a_busy_host_is_asked_again_and_takes_it_once() -> None:
    with Hook(503, (429, {"Retry-After": "9"}, b""), 200) as hook:
        assert sent(hook, "slack") == ([], [1.0, 9.0])
    assert len(hook.heard) == 3
    assert len({headers["Idempotency-Key"] for _, headers, _ in hook.heard}) == 1


def test_it_is_given_up_in_the_end_and_that_is_said() -> None:
    with Hook((500, {"Retry-After": "9999"}, b"oops")) as hook:
        notes, pauses = sent(hook, "discord")
    assert notes == ["--notify discord: not delivered: HTTP 500: oops (4 tries)"]
    assert pauses == [LONGEST_WAIT] * 3
    with Hook((404, {}, b"no_team")) as hook:
        notes, pauses = sent(hook, "slack")
    assert notes == ["--notify slack: not delivered: HTTP 404: no_team"]
    assert (pauses, len(hook.heard)) == ([], 1)


def test_a_hook_that_hangs_delays_no_verdict_and_is_said_at_the_end() -> None:
    notes: list[str] = []
    with Hook("hang") as hook:
        sender = Notifier(channels_of(["slack"], {"MARKOVLM_SLACK_WEBHOOK": hook.url}), notes.append)
        started = time.monotonic()
        sender.send(CHANGE)
        assert time.monotonic() - started < 1
        sender.close(0.3)
        assert time.monotonic() - started < 5
        sender.close()  # nothing is left to wait for
    assert notes == ["--notify slack: not delivered when watching ended"]


def test_messages_keep_their_order() -> None:
    with Hook(503, 200) as hook:
        sender = Notifier(channels_of(["webhook"], {"MARKOVLM_WEBHOOK": hook.url}), lambda _: None, lambda _: None)
        for step in range(5):
            sender.send({**CHANGE, "last_step": step})
        sender.close()
    assert [body["last_step"] for _, _, body in hook.heard] == [0, 0, 1, 2, 3, 4]


def test_what_a_log_says_calls_nobody_and_is_one_line() -> None:
    hostile = {**CHANGE, "path": "<!channel> @everyone **x** [a](http://evil)\n\u202e\x1b[31m", "why": "y" * 5000}
    with Hook() as hook:
        sent(hook, "slack", hostile)
        sent(hook, "discord", hostile)
    slack, discord = (body for _, _, body in hook.heard)
    assert "<" not in slack["text"]
    assert "&lt;!channel&gt;" in slack["text"]
    assert (slack["mrkdwn"], slack["unfurl_links"]) == (False, False)
    assert discord["allowed_mentions"] == {"parse": []}
    assert r"\[a\]\(http" in discord["content"]
    assert r"\*\*x\*\*" in discord["content"]
    assert len(discord["content"]) < 2000
    for text in (slack["text"], discord["content"]):
        assert text.count("\n") == 2
        assert not set(text) & set("\u202e\x1b")


def test_of_a_log_that_stands_still_and_of_one_of_several_launches() -> None:
    still = text_of({**CHANGE, "host": "h", "stalled_seconds": 7300.0, "launch": {"number": 2, "of": 3}, "cost": None})
    assert (
        still == "stalled: out/run.jsonl (launch 2 of 3) at step 1,100 on h\nno new row for 2.0 hours; verdict so far: collapsed"
    )
    bare = {"before": None, "onset_step": None, "last_step": None, "cost": {"lines": []}, "cause": "kl_runaway"}
    first = text_of({**CHANGE, "host": "h", **bare})
    assert first == f"collapsed: out/run.jsonl on h\n{CHANGE['why']}\ncause: kl runaway"


def test_the_id_is_the_changes() -> None:
    assert message_of(CHANGE)["id"] == message_of(dict(CHANGE))["id"] != message_of({**CHANGE, "before": "warn"})["id"]


def test_a_variable_and_a_token_of_ones_own() -> None:
    with Hook() as hook:
        notes: list[str] = []
        names = ["webhook=TEAM_HOOK", "webhook=TEAM_HOOK", "slack=OTHER"]
        channels = channels_of(names, {"TEAM_HOOK": f" {hook.url}\n", "TEAM_HOOK_TOKEN": "tok", "OTHER": hook.url})
        assert [channel.name for channel in channels] == ["webhook=TEAM_HOOK", "slack=OTHER"]
        assert "SECRET" not in repr(channels)
        assert "tok" not in repr(channels)
        sender = Notifier(channels, notes.append)
        sender.send(CHANGE)
        sender.close()
    assert notes == []
    assert sorted(headers.get("Authorization", "") for _, headers, _ in hook.heard) == ["", "Bearer tok"]


@pytest.mark.parametrize(
    ("name", "environment", "says"),
    [
        ("slack", {}, "MARKOVLM_SLACK_WEBHOOK is not set"),
        ("webhook=MINE", {"MARKOVLM_WEBHOOK": "https://x/"}, "MINE is not set"),
        ("teams", {}, "must be one of slack, discord, webhook"),
        ("https://hooks.slack.com/SECRET", {}, "a webhook's URL is its password"),
        ("slack=https://hooks.slack.com/SECRET", {}, "a webhook's URL is its password"),
        ("slack", {"MARKOVLM_SLACK_WEBHOOK": "http://hooks.slack.com/SECRET"}, "MARKOVLM_SLACK_WEBHOOK: it is not an https URL"),
        ("webhook", {"MARKOVLM_WEBHOOK": "https://10.0.0.1/SECRET"}, "not on the internet"),
        (
            "webhook",
            {"MARKOVLM_WEBHOOK": "https://x.org/", "MARKOVLM_WEBHOOK_TOKEN": "SECRET\nHost: y"},
            "_TOKEN: it contains a blank",
        ),
    ],
)
def test_what_can_not_work_is_one_line_without_the_secret(name: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        channels_of([name], environment)
    assert "SECRET" not in str(caught.value)


def test_a_host_inside_ends_the_command_before_it_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MARKOVLM_WEBHOOK", "https://localhost/SECRET")

    def inside(_: object) -> list[str]:
        raise posting.PrivateAddress

    monkeypatch.setattr(notify, "public_addresses", inside)
    with pytest.raises(UserError, match="not on the internet"):
        check(channels_of(["webhook"]))
    (tmp_path / "a.jsonl").write_text(json.dumps({"step": 1, "reward": 1.0}) + "\n")
    assert main(["watch", str(tmp_path / "a.jsonl"), "--idle", "0", "--notify", "webhook"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "not on the internet" in said.err
    assert "SECRET" not in said.err


def test_watch_sends_one_message_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.jsonl"
    rows = [{"step": s, "reward": 0.8 if s < 40 else 0.0, "loss": 0.1} for s in range(1, 81)]

    def write(first: int, last: int) -> None:
        with open(log, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows[first - 1 : last])

    write(1, 30)
    with Hook() as hook:
        monkeypatch.setenv("MARKOVLM_SLACK_WEBHOOK", hook.url)
        grow = threading.Timer(0.3, write, (31, 80))
        grow.start()
        assert main(["watch", str(log), "--every", "0.05", "--notify", "slack"]) == 3
        grow.join()
    [(_, _, body)] = hook.heard
    assert body["text"].startswith("collapsed (was ")
    assert "cost: " in body["text"]
    assert "SECRET" not in "".join(capsys.readouterr())


def test_a_hook_that_fails_is_a_note_and_the_exit_code_is_the_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.jsonl"
    log.write_text("".join(json.dumps({"step": s, "reward": 0.8 if s < 40 else 0.0, "loss": 0.1}) + "\n" for s in range(1, 81)))
    with Hook(410) as hook:
        monkeypatch.setenv("MARKOVLM_DISCORD_WEBHOOK", hook.url)
        assert main(["watch", str(log), "--notify", "discord"]) == 3
    assert "markovlm: note: --notify discord: not delivered: HTTP 410" in capsys.readouterr().err
