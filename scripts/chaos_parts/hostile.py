"""Text that wants to be more than text: in reports, tables, on the terminal, in names, and what `watch` hands on."""

from __future__ import annotations

import csv
import json
import os
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from chaos_parts.harness import Case, Place, call, case

TEXTS = (
    "<script>alert('hostile')</script>",
    "</script><script>alert('hostile')</script>",
    "<img src=x onerror=alert('hostile')>",
    "\" onmouseover=\"alert('hostile')",
    "javascript:alert('hostile')",
    "<!--<script>hostile",
    "]]><svg/onload=alert('hostile')>",
    "{{ 7 * 7 }}{% hostile %}",
    "=cmd|' /C calc'!A0",
    "+1+hostile",
    "-2+3+hostile",
    "@SUM(1+1)*hostile",
    "\t=1+hostile",
    "\r=1+hostile",
    "＝1+hostile",
    " =hostile",
    "\x1b[2J\x1b]0;hostile\x07",
    "\x9b31mhostile",
    "a\x00b",
    "\u202ehostile",
    "\u2028hostile",
    "\ud800",
    "a\nb\r\nc",
    "| hostile | `x` |",
    "[x](javascript:hostile)",
    "$(touch sprung)",
    "`touch sprung`",
    "; touch sprung",
    "../../../../etc/passwd",
    "x" * 20_000,
    "%s%n{0}",
    "[red]hostile[/red][/]",
)
NAMES = (
    "$(touch sprung)",
    "`touch sprung`",
    "; touch sprung;",
    "| touch sprung",
    "-rf",
    "--help",
    "a b'c\"d",
    "<img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b]0;t\x07",
    "new\nline",
    "%0A",
    "=1+1",
    "[red]",
    "{{7*7}}",
    "é東京🙂",
    "a" * 200,
    "..hidden",
    "null",
    "\u202eabc",
    "&amp;",
)


def _rows(text: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of a run with `text` in every place that holds one, a key among them."""
    how = {"decoding": text, "temperature": 1.0, "reader": text, "conditioning": text, "style": text, "header": text, text: text}
    shared = {"question": text, "cot": text, "baseline_cot": text, "answer": text, "question_id": text}
    return {
        "metrics.jsonl": [
            {"step": s, "reward_mean": -2.0 + s / 20, "kl": 0.1, "entropy": 1.0, "cot_length": 20.0, f"objective_{text}": 1.0}
            for s in range(1, 31)
        ],
        "samples.jsonl": [
            {"step": s, "sample": s, "reward": 0.5, "correct": bool(s % 2), "cot_tokens": 3, **shared} for s in range(1, 9)
        ],
        "evals.jsonl": [
            {
                "step": s,
                "role": "dev",
                "split": text,
                "checkpoint": text,
                "n": 50,
                "accuracy": 0.5,
                "ci95": [0.4, 0.6],
                "logprob": -1.0,
                "how": how,
                "extractors": {text: {"accuracy": 0.5, "ci95": [0.4, 0.6], "no_answer": 0.0}},
                "failures": {text: 3},
            }
            for s in (0, 30)
        ],
        "events.jsonl": [
            {"time": text, "step": 3, "kind": kind, "message": text, "verdict": text, "signals": [{"name": text, "level": text}]}
            for kind in ("verdict", "warning", "checkpoint", "rollback", text)
        ],
    }


def _run(folder: Path, text: str, model: str) -> Path:
    """A run directory with `text` in every field."""
    (folder / "checkpoints").mkdir(parents=True)
    config = {
        "model": model,
        "task": text,
        "seed": text,
        "objective": {"name": text, text: text},
        "data": {"path": text},
        text: text,
        "logging": {"trackers": [text]},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (folder / "environment.json").write_text(
        json.dumps({"device_name": text, "markovlm": text, "model": text, "run": "", text: text})
    )
    for name, rows in _rows(text).items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = {"run": text, "checkpoint": text, "step": 30, "split": text, "task": text, "model": text, "n": 9}
    study = {
        "kind": "perturb",
        **head,
        "conditioning": text,
        "seed": 0,
        "notes": [text],
        "rows": [
            {
                "perturbation": text,
                "level": text,
                "severity": 0.5,
                "n": 9,
                "changed": 1.0,
                "drop_logprob": {"mean": 1.0, "ci95": [0.5, 1.5]},
                "drop_accuracy": None,
            }
        ],
    }
    explain = {
        "kind": "explain",
        **head,
        "by": "word",
        "how": "remove",
        "by_kind": [],
        "by_position": [],
        "examples": [
            {
                "id": text,
                "question": text,
                "gold": text,
                "answer": text,
                "correct": True,
                "target": text,
                "logprob": -1.0,
                "units": [{"text": text, "kind": text, "start": 0.0, "drop": 1.0}],
            }
        ],
    }
    (folder / "loadbearing").mkdir()
    for name, value in (("perturb", study), ("explain", explain)):
        (folder / "loadbearing" / f"{name}-x.json").write_text(json.dumps(value))
    return folder


class _Page(HTMLParser):
    """What of a page a browser would run, and the scripts themselves."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.bad: list[str] = []
        self.scripts: list[str] = []
        self._in = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag == "script"
        if tag == "script":
            self.scripts.append("")
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith(("javascript:", "data:text/html")):
                self.bad.append(f"{tag} {name}={value!r:.60}")
        if tag in ("img", "iframe", "object", "embed", "base", "form") and any(
            "hostile" in (v or "") or v == "x" for _, v in attrs
        ):
            self.bad.append(f"<{tag}> of a text")

    def handle_endtag(self, tag: str) -> None:
        self._in = False if tag == "script" else self._in

    def handle_data(self, data: str) -> None:
        if self._in:
            self.scripts[-1] += data


def page_fault(path: Path, scripts: int | None = None) -> str:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8", errors="replace"))
    if page.bad:
        return f"{path.name}: {page.bad[0]}"
    if any(re.match(r"\s*alert\('hostile'\)", script) for script in page.scripts):
        return f"{path.name}: a script of a text"
    if scripts is not None and len(page.scripts) != scripts:
        return f"{path.name}: {len(page.scripts)} scripts, and {scripts} of ours"
    return ""


def table_fault(path: Path) -> str:
    """A cell that a spreadsheet would reckon."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            for cell in row:
                if re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell) and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?|-", cell):
                    return f"{path.name}: a formula {cell!r:.40}"
    return ""


def texts(place: Place) -> Iterator[Case]:
    """Each of some thirty texts (scripts, attributes, formulas, escape sequences, markup, templates, shell, paths) is put
    into every field of a run, as key and as value. report (page, Markdown, tables), diagnose and watch show it and do nothing
    else with it."""
    clean = place.new("clean")
    _run(clean / "run", "innocent", str(place.model))
    call("report", "run", "-o", "out", cwd=clean)
    page = _Page()
    page.feed((clean / "out" / "report.html").read_text())
    for number, text in place.some(enumerate(TEXTS)):
        folder = place.new(f"text-{number}")
        _run(folder / "run", text, str(place.model))
        shown = f"{text!r:.40}"
        done = call("report", "run", "-o", "out", cwd=folder)
        yield case(f"report: {shown}", done, 0)
        if done.code == 0:
            yield Case(f"page: {shown}", page_fault(folder / "out" / "report.html", len(page.scripts)))
            faults = [table_fault(path) for path in (folder / "out" / "tables").glob("*.csv")]
            yield Case(f"tables: {shown}", next(filter(None, faults), ""))
        for words in (
            ["diagnose", "run"],
            ["diagnose", "run", "--json"],
            ["watch", "run", "--idle", "0"],
            ["eval", "run"],
            ["tasks", text[:100].replace("\0", "") or "x"],
        ):
            yield case(f"{words[0]}: {shown}", call(*words, cwd=folder))
        _audit = [{"question": text, "cot": text, "answer": text, "group": text, "id": f"{text}{i}"} for i in range(3)]
        (folder / "cots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _audit))
        audit = call(
            "audit",
            "cots.jsonl",
            "--reader",
            place.model,
            "--only",
            "leak,legibility",
            "--limit",
            "2",
            "--out",
            "audited",
            cwd=folder,
        )
        yield case(f"audit: {shown}", audit, 0, 2)
        for made in folder.glob("audited/*.html"):
            yield Case(f"audit's page: {shown}", page_fault(made))
        yield Case(f"nothing ran: {shown}", "ran" if list(folder.rglob("sprung")) else "")


def names(place: Place) -> Iterator[Case]:
    """Runs and logs have names that are commands, options, markup or escape sequences. Every command that takes them is
    tried, and `watch --exec` and `--webhook`, which get the name unchanged and nothing else."""
    heard: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in place.some(NAMES):
        folder = place.new("names")
        log = folder / f"{name}.jsonl"
        rows = [
            {
                "step": s,
                "reward_mean": 0.5 if s < 60 else -30.0,
                "kl": 0.1,
                "longest_char_run": 1.0 if s < 60 else 90.0,
                "cot_length": 90.0,
            }
            for s in range(1, 90)
        ]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        _run(folder / name, "innocent", str(place.model))
        told = folder / "told"
        program = folder / "tell.py"
        program.write_text(f"import sys, json\nopen({str(told)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n")
        shown = f"{name!r:.40}"
        heard.clear()
        hook = ["--exec", f"python {program}", "--webhook", f"http://127.0.0.1:{server.server_address[1]}/"]
        where = f"./{log.name}" if log.name.startswith("-") else log.name
        watched = call("watch", "--idle", "0", *hook, "--", log.name, cwd=folder)
        yield case(f"watch: {shown}", watched, 3)
        calls = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
        right = bool(calls) and all(words[0] in ("warn", "collapsed") and words[2] == where for words in calls)
        yield Case(f"--exec: {shown}", "" if right else f"--exec got {calls!r:.120}")
        posted = [json.loads(body)["path"] for body in heard]
        yield Case(f"--webhook: {shown}", "" if posted and set(posted) == {log.name} else f"--webhook got {posted!r:.120}")
        for words in (
            ["diagnose", "--", log.name],
            ["diagnose", "--", name],
            ["report", "-o", "out", "--", log.name, name],
            ["eval", "--", name],
            ["ask", "--", name, "1+2"],
        ):
            yield case(f"{words[0]}: {shown}", call(*words, cwd=folder))
        if (folder / "out" / "report.html").exists():
            yield Case(f"page: {shown}", page_fault(folder / "out" / "report.html"))
        yield Case(f"nothing ran: {shown}", "ran" if list(folder.rglob("sprung")) else "")
    server.shutdown()
    server.server_close()
    for url in (
        "http://127.0.0.1:9/",
        "http://localhost:9/x?token=SECRET",
        "http://example.com/",
        "file:///etc/passwd",
        "http://[::1",
        "ftp://localhost/",
        "http://localhost@example.com/",
    ):
        folder = place.new("hooks")
        (folder / "x.log").write_text("{'loss': 0.1, 'reward': 0.5, 'epoch': 0.1}\n" * 30)
        yield case(f"--webhook {url}", call("watch", "x.log", "--idle", "0", "--webhook", url, cwd=folder))
    for command in ("", "'", "/nowhere/program", "false", f"{os.devnull}"):
        yield case(f"--exec {command!r}", call("watch", "x.log", "--idle", "0", "--exec", command, cwd=folder))
