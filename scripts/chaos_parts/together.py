"""Several at once: two processes on one run, logs that grow while they are read, very large ones and very many."""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos_parts.harness import Case, Place, call, case, leftovers, start, tried, wait
from chaos_parts.kills import config, finished_run, trainer
from support import runs


def one_run(place: Place) -> Iterator[Case]:
    """Two processes use one run directory at the same time. A second trainer is refused. Readings, studies, reports and
    evaluations that are made twice at once leave whole files with the same contents. Reading a run does not disturb its
    training."""
    from markovlm.config import dump_yaml

    finished = finished_run(place)
    folder = place.new("trainers")
    (folder / "run.yaml").write_text(dump_yaml(config(place, "grpo")))
    first = start("train", "run.yaml", "--out", "run", cwd=folder)
    _until(lambda: (folder / "run" / "config.yaml").exists())
    second = call("train", "--resume", "run", cwd=folder)
    yield case("a second --resume", second, 2, also="" if "another process is training" in second.err else second.err[-160:])
    third = call("train", "run.yaml", "--out", "run", cwd=folder)
    yield case(
        "a second train", third, 2, also="" if "not empty" in third.err or "another process" in third.err else third.err[-160:]
    )
    yield case("the first", wait(first), 0)
    yield tried("is the run that was left alone", lambda: runs.assert_same_directory(folder / "run", finished))

    folder = place.new("watched")
    training = start("train", "", cwd=folder, work=trainer(place, "grpo", folder / "run"))
    _until(lambda: (folder / "run" / "checkpoints" / "step-000003").exists())
    for words in (["diagnose", "run"], ["report", "run", "-o", "report"], ["eval", "run", "--limit", "4", "--out", "elsewhere"]):
        yield case(f"{words[0]} while it trains", call(*words, cwd=folder), 0, 3)
    yield case("the run", wait(training), 0)
    there = [row for row in runs.rows(folder / "run", "evals.jsonl") if row["role"] == "dev"]
    yield tried("has the rows of the run that was left alone", lambda: _equal(there, runs.rows(finished, "evals.jsonl")))

    twice: dict[str, tuple[list[str], str]] = {
        "eval": (["eval", "run", "--checkpoints", "all", "--limit", "6"], "evaluations/*.jsonl"),
        "perturb": (["perturb", "run", "--only", "delete", "--limit", "4"], "loadbearing/*.json"),
        "report": (["report", "run", "-o", "report"], "../report/tables/*.csv"),
        "explain": (["explain", "run", "--limit", "4"], "loadbearing/*.json"),
    }
    for name, (words, made) in place.some(twice.items()):
        alone, both = place.new(name), place.new(f"{name}-twice")
        for at in (alone, both):
            shutil.copytree(finished, at / "run")
        call(*words, cwd=alone)
        together = [start(*words, cwd=both) for _ in range(2)]
        for number, started in enumerate(together, 1):
            yield case(f"{name}, twice at once: {number}", wait(started), 0)
        yield tried(f"{name}, twice at once: the files", lambda a=alone, b=both, m=made: _same_files(b / "run", a / "run", m))
        left = leftovers(both)
        yield Case(f"{name}, twice at once: nothing left", f"left {left}" if left else "")
        again = call(*words, cwd=both)
        yield case(f"{name}, twice at once, then once more", again, 0)


def _until(there: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.02)


def _equal(one: object, other: object) -> None:
    assert one == other


def _same_files(ours: Path, theirs: Path, pattern: str) -> None:
    """The same names; of rows the same set, of all else the same without times."""
    mine, other = ({p.name: p for p in sorted(at.glob(pattern))} for at in (ours, theirs))
    assert sorted(mine) == sorted(other), sorted(set(mine) ^ set(other))
    assert mine, pattern
    for name, path in mine.items():
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            ids = {row.get("id"): row for row in lines}
            want = {row.get("id"): row for row in map(json.loads, other[name].read_text().splitlines())}
            assert ids == want, name
        elif path.suffix == ".json":
            json.loads(path.read_text())


# ------------------------------------------------------------------------------------------------------------- logs


def _native(step: int) -> str:
    reward = -3.0 + 2.0 * (1 - math.exp(-step / 60))
    return (
        json.dumps(
            {"step": step, "reward_mean": reward, "kl": 0.01 * step**0.5, "entropy": 1.5, "cot_length": 80.0, "grad_norm": 0.4}
        )
        + "\n"
    )


def _trl(step: int) -> str:
    reward = 0.2 + step / 2000
    return (
        f"{{'loss': 0.1, 'grad_norm': 0.4, 'learning_rate': 1e-06, 'reward': {reward:.4f}, 'kl': 0.01, 'epoch': {step / 100}}}\n"
    )


def _csv(step: int) -> str:
    return ("step,reward,kl,loss\n" if step == 1 else "") + f"{step},{0.2 + step / 2000:.4f},0.01,0.1\n"


GROWING: dict[str, Callable[[int], str]] = {"metrics.jsonl": _native, "train.log": _trl, "log.csv": _csv}


def growing(place: Place) -> Iterator[Case]:
    """A log grows while diagnose and watch read it, in pieces that end anywhere (in the middle of a row, of a number, of a
    character). There is no traceback, and the final verdict is that of the whole log."""
    rng = random.Random(place.seed + 4)
    for name, row in GROWING.items():
        folder = place.new("growing")
        whole = "".join(row(step) for step in range(1, 301)).encode()
        (folder / "whole").mkdir()
        (folder / "whole" / name).write_bytes(whole)
        expected = json.loads(call("diagnose", f"whole/{name}", "--json", cwd=folder).out)
        cut = sorted(rng.sample(range(1, len(whole)), 40))
        watching = None
        for number, (begin, end) in enumerate(zip([0, *cut], [*cut, len(whole)], strict=True)):
            with (folder / name).open("ab") as file:
                file.write(whole[begin:end])
            if number == 1:
                watching = start("watch", name, "--every", "0.05", "--idle", "3", "--json", cwd=folder)
            if number % 3 == 0:
                yield case(f"{name}: diagnose, {end} of {len(whole)} bytes", call("diagnose", name, cwd=folder), 0, 2, 3)
        assert watching is not None
        yield case(f"{name}: watch", wait(watching), 0, 3)
        found = json.loads(call("diagnose", name, "--json", cwd=folder).out)
        same = (
            [one["verdict"] for one in found["runs"]] == [one["verdict"] for one in expected["runs"]]
            if "runs" in found
            else found == expected
        )
        yield Case(f"{name}: in the end", "" if same else f"{found} is not {expected}"[:200])


def large(place: Place) -> Iterator[Case]:
    """A log of 1 GB (metric rows; one line; a console log), and 2,000 runs in a directory. An answer comes in minutes, and
    memory does not grow with the console log."""
    folder = place.new("large")
    rows = folder / "rows.jsonl"
    with rows.open("w") as file:
        step = 0
        while file.tell() < 1 << 30:
            file.write("".join(_native(step + i + 1) for i in range(20_000)))
            step += 20_000
    yield _timed(place, "1 GB of metric rows", folder, rows, 4_000)
    rows.unlink()
    line = folder / "line.jsonl"
    with line.open("wb") as file:
        file.write(_native(1).encode() + b'{"step": 2, "x": "')
        for _ in range(1 << 10):
            file.write(b"x" * (1 << 20))
    yield _timed(place, "1 GB in one line", folder, line, 4_000)
    line.unlink()
    console = folder / "train.log"
    block = "".join(f"\r  {i % 100}%|{'█' * 10}| {i}/100 [00:01<00:01]\x1b[0m" for i in range(2000)).encode()
    with console.open("wb") as file:
        step = 0
        while file.tell() < 1 << 30:
            step += 1
            file.write(block + b"\n" + _trl(step).encode())
    yield _timed(place, "1 GB of a console's log", folder, console, 1_500)
    console.unlink()
    many = place.new("many")
    for number in range(2_000):
        (many / f"run-{number:04d}.jsonl").write_text("".join(_native(step) for step in range(1, 30 + number % 40)))
    yield _timed(place, "2,000 runs: diagnose", many, Path("."), 1_500)
    report = call("report", ".", "-o", "report", cwd=many, seconds=1_200)
    yield case(f"2,000 runs: report ({report.seconds:.0f} s, {report.memory:,.0f} MB)", report, 0, most=6_000)


def _timed(place: Place, name: str, folder: Path, path: Path, most: float) -> Case:
    done = call("diagnose", str(path), cwd=folder, seconds=900)
    return case(f"{name} ({done.seconds:.0f} s, {done.memory:,.0f} MB)", done, 0, 3, most=most)
