"""Damaged, mixed and foreign files of a run; full disks and disks that can only be read."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from chaos_parts.harness import Case, Done, Place, call, case, leftovers, start, tried, wait
from chaos_parts.kills import audit_file, commands, config, finished_run, trainer
from support import runs

FILES = ("adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "trainer_state.json")
Damage = Callable[[Path, random.Random], None]


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _instead(make: Callable[[Path], object]) -> Damage:
    def damage(path: Path, rng: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


class _Trap:
    def __reduce__(self) -> object:
        return (os.system, ("touch sprung",))


DAMAGES: dict[str, Damage] = {
    "a flipped bit": _flip,
    "another flipped bit": _flip,
    "a third flipped bit": _flip,
    "cut off": _cut,
    "empty": lambda path, _: path.write_bytes(b"") and None,
    "zeros": lambda path, _: path.write_bytes(bytes(path.stat().st_size)) and None,
    "doubled": lambda path, _: path.write_bytes(path.read_bytes() * 2) and None,
    "gone": lambda path, _: path.unlink(),
    "a directory": _instead(Path.mkdir),
    "a pipe": _instead(os.mkfifo),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "a link to /dev/zero": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a pickle": lambda path, _: path.write_bytes(pickle.dumps(_Trap())) and None,
    "nested JSON": lambda path, _: path.write_bytes(b"[" * 200_000) and None,
}


def checkpoints(place: Place) -> Iterator[Case]:
    """Each file of a checkpoint is flipped, cut, emptied, replaced or swapped. --resume, eval and export refuse it in one
    line that names the checkpoint and the undamaged ones; --force is recorded as an event. The same for checkpoints without
    manifests, as earlier versions wrote them: no traceback, no pickle is run, and no pipe is waited for."""
    finished, rng = finished_run(place), random.Random(place.seed + 2)
    files = (*FILES, "manifest.json")
    pairs = [
        (name, what, damage) for name in files for what, damage in {**DAMAGES, **_swaps(place, name), **_shapes(name)}.items()
    ]
    for name, what, damage in place.some(pairs):
        folder = place.new("damage")
        shutil.copytree(finished, folder / "run")
        path = folder / "run" / "checkpoints" / "step-000007" / name
        damage(path, rng)
        for words in (
            ["train", "--resume", "run", "--training.steps", "8"],
            ["eval", "run", "--limit", "2"],
            ["export", "run", "--to", "out"],
        ):
            done = call(*words, cwd=folder)
            pruned = what == "gone" and name in ("optimizer.pt", "trainer_state.json") and words[0] != "train"
            also = "" if pruned else _named(done)
            yield case(f"{name}: {what}: {words[0]}", done, 0 if pruned else 2, also=also)
        forced = call("eval", "run", "--limit", "2", "--force", cwd=folder)
        events = [row["kind"] for row in runs.rows(folder / "run", "events.jsonl")]
        quiet = forced.code == 0 and "forced" not in events and what != "gone"
        yield case(f"{name}: {what}: eval --force", forced, 0, 1, 2, also="no event" if quiet else "")
        yield Case(f"{name}: {what}: nothing ran", "a pickle ran" if list(folder.rglob("sprung")) else "")
        shutil.rmtree(folder)
        if name == "manifest.json":
            continue
        folder = place.new("old")
        runs_of_before(finished, folder / "run")
        damage(folder / "run" / "checkpoints" / "step-000007" / name, rng)
        done = call("train", "--resume", "run", "--training.steps", "8", cwd=folder)
        yield case(f"{name}: {what}: --resume, without manifests", done, 0, 1, 2)
        yield Case(f"{name}: {what}: nothing ran", "a pickle ran" if list(folder.rglob("sprung")) else "")
        shutil.rmtree(folder)


def _named(done: Done) -> str:
    said = "step-000007" in done.err and "step-000006" in done.err
    return "" if said else f"does not name the checkpoints: {done.err[-200:]!r}"


def _swaps(place: Place, name: str) -> dict[str, Damage]:
    def swap(source: Path) -> Damage:
        return lambda path, _: shutil.copy(source / name, path) and None

    other, same = place.made["other"], place.made["run"]
    made = {
        "another run's": swap(other / "checkpoints" / "step-000007"),
        "another step's": swap(same / "checkpoints" / "step-000003"),
    }
    return {} if name == "adapter_config.json" else made  # two runs of one kind have the same


def _shapes(name: str) -> dict[str, Damage]:
    """What can be read, and is not what was written."""
    if name == "trainer_state.json":
        changes: dict[str, Callable[[dict[str, Any]], Any]] = {
            "an empty object": lambda _: {},
            "a list": lambda _: [],
            "null": lambda _: None,
            "a text for the step": lambda state: {**state, "step": "7"},
            "no guard": lambda state: {**state, "guard": None},
            "a bad best": lambda state: {**state, "best": {"step": -1}},
        }
        return {what: _rewritten(change) for what, change in changes.items()}
    if name == "optimizer.pt":
        values: dict[str, Any] = {
            "a list": [1],
            "no param_groups": {"state": {}},
            "a tensor": torch.zeros(3),
            "of another rank": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"params": [0]}]},
        }
        return {what: lambda path, _, value=value: torch.save(value, path) for what, value in values.items()}
    if name == "adapter_model.safetensors":

        def missing(path: Path, rng: random.Random) -> None:
            tensors = load_file(path)
            del tensors[rng.choice(sorted(tensors))]
            save_file(tensors, path)

        def not_finite(path: Path, rng: random.Random) -> None:
            tensors = load_file(path)
            tensors[rng.choice(sorted(tensors))].fill_(float("nan"))
            save_file(tensors, path)

        def pickled(path: Path, _: random.Random) -> None:
            path.with_suffix(".bin").write_bytes(pickle.dumps(_Trap()))
            path.unlink()

        return {"a tensor missing": missing, "NaN": not_finite, "a pickle beside": pickled}
    return {}


def _rewritten(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return lambda path, _: path.write_text(json.dumps(change(json.loads(path.read_text())))) and None


def runs_of_before(finished: Path, out: Path) -> None:
    """A run as a version without manifests left it."""
    shutil.copytree(finished, out)
    for path in out.rglob("manifest.json"):
        path.unlink()
    environment = json.loads((out / "environment.json").read_text())
    del environment["run"]
    (out / "environment.json").write_text(json.dumps(environment))


def other_files(place: Place) -> Iterator[Case]:
    """Every other file of a run is damaged in the same ways. diagnose, report, eval, perturb and --resume end by themselves,
    without a traceback."""
    finished, rng = finished_run(place), random.Random(place.seed + 3)
    files = ("config.yaml", "environment.json", "metrics.jsonl", "evals.jsonl", "samples.jsonl", "events.jsonl")
    for name, (what, damage) in place.some(itertools.product(files, DAMAGES.items())):
        folder = place.new("files")
        shutil.copytree(finished, folder / "run")
        damage(folder / "run" / name, rng)
        for words in (
            ["diagnose", "run"],
            ["report", "run", "-o", "out"],
            ["eval", "run", "--checkpoints", "best", "--limit", "2"],
            ["perturb", "run", "--only", "delete", "--limit", "2"],
            ["train", "--resume", "run", "--training.steps", "8"],
        ):
            yield case(f"{name}: {what}: {words[0]}", call(*words, cwd=folder))
        yield Case(f"{name}: {what}: nothing ran", "a pickle ran" if list(folder.rglob("sprung")) else "")
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------------- disks


class _Disk:
    """A file system of its own, where this process may mount one."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="chaos-disk-"))
        self.size = 0

    def __enter__(self) -> _Disk:
        self._mount("size=64m")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False)
        self.path.rmdir()

    def _mount(self, options: str, *more: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join((options, *more)), "tmpfs", str(self.path)], check=True, capture_output=True
        )

    def options(self, text: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{text}", str(self.path)], check=True, capture_output=True)

    def leave(self, kilobytes: int) -> None:
        """Only so much is free."""
        self.free()
        free = os.statvfs(self.path)
        (self.path / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - kilobytes * 1024)))

    def free(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)


def disks(place: Place) -> Iterator[Case]:
    """A disk is full, or becomes full in the middle (0 to 400 kB free), under training and every other command. One line says
    so, no temporary name is left, and once there is space the same command ends as if nothing had happened. Also a run that
    can only be read."""
    finished = finished_run(place)
    try:
        disk = _Disk().__enter__()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return  # not root, or no mount: counted as nothing
    try:
        yield from _full(place, disk, finished)
        yield from _read_only(place, disk, finished)
    finally:
        disk.__exit__()


def _full(place: Place, disk: _Disk, finished: Path) -> Iterator[Case]:
    whole = wait(start("train", cwd=place.path, work=trainer(place, "grpo", place.new("disk") / "run")), 600)
    yield Case("training: left alone", whole.fault(0))
    (place.path / "run.yaml").write_text(_yaml(place))
    for kilobytes in place.some((0, 4, 16, 40, 80, 120, 200, 400)):
        out = disk.path / "run"
        disk.leave(kilobytes)
        done = call("train", place.path / "run.yaml", "--out", out, cwd=place.path)
        left = leftovers(disk.path)
        disk.free()
        yield case(f"training, {kilobytes} kB free", done, 0, 1, 2, also=f"left {left}" if left else _says_full(done))
        words = ["--resume", out] if (out / "config.yaml").exists() else [place.path / "run.yaml", "--out", out]
        again = call("train", *words, cwd=place.path)
        same = tried("", lambda out=out: runs.assert_same_run(out, finished))
        yield case(f"training, {kilobytes} kB free, then space", again, 0, also=same.fault)
        shutil.rmtree(out)
    for name, (words, product) in commands(place, disk.path).items():
        for kilobytes in place.some((0, 8, 60)):
            folder = disk.path / "work"
            folder.mkdir()
            shutil.copytree(finished, folder / "run")
            audit_file(folder)
            disk.leave(kilobytes)
            done = call(*words, cwd=folder)
            left = leftovers(folder)
            disk.free()
            yield case(f"{name}, {kilobytes} kB free", done, 0, 1, 2, also=f"left {left}" if left else _says_full(done))
            again = call(*words, cwd=folder)
            there = (folder / product).exists()
            finished_before = again.code == 2 and done.code == 0  # export does not write over what it wrote
            yield case(
                f"{name}, {kilobytes} kB free, then space",
                again,
                *((0, 2) if finished_before else (0,)),
                also="" if there else "no result",
            )
            shutil.rmtree(folder)


def _says_full(done: Done) -> str:
    """An error that a full disk made says so, and what is to be done."""
    if done.code == 0:
        return ""
    return "" if "No space left" in done.err and "free space" in done.err else f"says nothing of the disk: {done.err[-200:]!r}"


def _read_only(place: Place, disk: _Disk, finished: Path) -> Iterator[Case]:
    shutil.copytree(finished, disk.path / "run")
    audit_file(disk.path)
    disk.options("ro")
    every = commands(place, disk.path)
    for name, words in {**{name: words for name, (words, _) in every.items()}, "--resume": ["train", "--resume", "run"]}.items():
        done = call(*words, cwd=disk.path)
        said = "Read-only" in done.err and ("writable" in done.err or "name " in done.err)
        yield case(f"{name}, read-only", done, 0, 1, 2, also="" if done.code == 0 or said else f"says: {done.err[-200:]!r}")
    for name, words in (("ask", ["ask", "run", "1+2"]), ("diagnose", ["diagnose", "run"])):
        yield case(f"{name}, read-only", call(*words, cwd=disk.path), 0)
    disk.options("rw")
    shutil.rmtree(disk.path / "run")


def _yaml(place: Place) -> str:
    from markovlm.config import dump_yaml

    return dump_yaml(config(place, "grpo"))
