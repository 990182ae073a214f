"""Archives and documents that grow without end, and files that are none."""

from __future__ import annotations

import bz2
import functools
import json
import lzma
import os
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos_parts.harness import Case, Place, call, case

GB = 1 << 30


def _gzip_of(head: bytes, filler: bytes, size: int) -> bytes:
    """A gzip file that unpacks to `head` and then `size` bytes of filler, made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = [packer.compress(head)]
    block = filler * ((1 << 20) // len(filler))
    out.extend(packer.compress(block) for _ in range(size // len(block)))
    return b"".join([*out, packer.flush()])


def archives(place: Place) -> Iterator[Case]:
    """gzip, bzip2, xz, zip and Parquet files of a few MB that unpack to 8 GB are given wherever a file is read: one line, in
    bounded memory."""
    folder = place.new("archives")
    row = json.dumps({"question": "1+2", "answer": "3", "cot": "x", "step": 1, "reward": 0.5, "loss": 0.1}).encode() + b"\n"
    inside = {"zeros": (row * 20, b"\0"), "line": (row * 20 + b'{"question": "', b"x"), "rows": (b"", row)}
    packed = {name: functools.cache(functools.partial(_gzip_of, head, filler, 8 * GB)) for name, (head, filler) in inside.items()}
    makers: dict[str, Callable[[Path], Any]] = {
        f"{name}{suffix}": lambda path, made=made: path.write_bytes(made())
        for name, made in packed.items()
        for suffix in (".jsonl.gz", ".json.gz", ".csv.gz", ".log.gz")
    }
    makers |= {
        "zeros.jsonl.bz2": _squeezed(bz2.BZ2Compressor),
        "zeros.jsonl.xz": _squeezed(lambda: lzma.LZMACompressor(preset=0)),
    }
    makers |= {"bomb.eval": _zip, "rows.parquet": _parquet}
    for name in place.some(sorted(makers)):
        path = folder / name
        makers[name](path)
        if path.suffix not in (".eval", ".bz2", ".xz"):
            yield case(f"diagnose {path.name}", call("diagnose", path.name, cwd=folder, seconds=400), most=3_000)
            yield case(
                f"train --data {path.name}",
                call(
                    "train",
                    "--task",
                    "custom",
                    "--model",
                    place.model,
                    "--data",
                    path.name,
                    "--training.steps",
                    "1",
                    "--out",
                    "run",
                    cwd=folder,
                ),
                1,
                2,
                most=3_000,
            )
        yield case(
            f"audit {path.name}",
            call("audit", path.name, "--reader", place.model, "--dry-run", cwd=folder, seconds=400),
            most=6_000,
        )
    yield case("diagnose all of them", call("diagnose", ".", cwd=folder, seconds=900), most=4_000)
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(f"model: {place.model}\ntask: arithmetic\n")
    (run / "metrics.jsonl").write_bytes(packed["zeros"]())
    yield case(
        "report on a run whose metrics.jsonl is one", call("report", "run", "-o", "report", cwd=folder, seconds=400), most=4_000
    )


def _squeezed(make: Callable[[], Any]) -> Callable[[Path], Any]:
    """A maker of 2 GB of zeros, packed as a stream."""

    def write(path: Path) -> None:
        squeezer = make()
        with path.open("wb") as file:
            for _ in range(2 * 1024):
                file.write(squeezer.compress(bytes(1 << 20)))
            file.write(squeezer.flush())

    return write


def _zip(path: Path) -> None:
    """An Inspect log whose two members unpack to 4 GB each."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in ("header.json", "samples/1_epoch_1.json"):
            with archive.open(member, "w", force_zip64=True) as file:
                for _ in range(4 * 1024):
                    file.write(bytes(1 << 20))


def _parquet(path: Path) -> None:
    """A few kB that stand for 200 million rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 10_000_000
    one = pa.RecordBatch.from_arrays(
        [pa.repeat("1+2", n), pa.repeat("3", n), pa.repeat(1, n)], names=["question", "answer", "step"]
    )
    with pq.ParquetWriter(path, one.schema, compression="zstd", use_dictionary=True) as writer:
        for _ in range(20):
            writer.write_batch(one)


def documents(place: Place) -> Iterator[Case]:
    """YAML whose aliases stand for billions of values, that refers to itself, or is nested endlessly; JSON that is nested
    endlessly, or has numbers of a million digits, a million keys or duplicate keys; in every file that is read as such."""
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    maps = "a: &a {x: 1, y: 2}\n" + "".join(
        f"{name}: &{name} {{{', '.join(f'k{i}: *{before}' for i in range(10))}}}\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    yamls = {
        "billions": laughs,
        "billions of keys": maps,
        "itself": "task: &t [*t]\n",
        "nested": "task: " + "[" * 100_000,
        "nested keys": "".join(f"{' ' * i}a:\n" for i in range(3_000)),
        "a number": f"seed: {'9' * 1_000_000}\n",
        "a tag": "task: !!python/object/apply:os.system ['touch sprung']\n",
        "bytes": 'task: "\\x00\\ud800"\n',
        "8 MB": "# " + "x" * (8 << 20) + "\ntask: arithmetic\n",
    }
    jsons = {
        "nested": "[" * 1_000_000,
        "nested objects": '{"a":' * 1_000_000,
        "a number": f'{{"step": {"9" * 1_000_000}, "reward": 1}}',
        "a float": '{"step": 1, "reward": 1e999999, "loss": -1e999999}',
        "keys": json.dumps({f"k{i}": i for i in range(300_000)}),
        "twice": '{"step": 1, "step": 2, "reward": 1, "reward": {}}',
        "surrogates": '{"step": 1, "question": "\\ud800\\udfff", "cot": "\\u0000"}',
        "NaN": '{"step": NaN, "reward": Infinity, "loss": -Infinity}',
    }
    for name, text in yamls.items():
        folder = place.new("yaml")
        _empty_run(place, folder / "run", text)
        (folder / "sweep.yaml").write_text(text)
        (folder / "map.yaml").write_text(text)
        (folder / "rows.jsonl").write_text('{"step": 1, "reward": 0.5, "loss": 0.1}\n')
        for words in place.some(
            (
                ["train", "run/config.yaml", "--dry-run"],
                ["train", "--resume", "run"],
                ["eval", "run"],
                ["diagnose", "run"],
                ["report", "run", "-o", "out"],
                ["sweep", "sweep.yaml", "--dry-run"],
                ["diagnose", "rows.jsonl", "--map", "map.yaml"],
                ["ask", "run", "1+2"],
                ["perturb", "run"],
            )
        ):
            yield case(f"YAML: {name}: {' '.join(words[:2])}", call(*words, cwd=folder, seconds=60))
        yield Case(f"YAML: {name}: nothing ran", "ran" if list(folder.rglob("sprung")) else "")
    for name, text in jsons.items():
        folder = place.new("json")
        run = _empty_run(place, folder / "run", f"model: {place.model}\ntask: arithmetic\n")
        for file in ("environment.json", "metrics.jsonl", "evals.jsonl", "samples.jsonl", "events.jsonl"):
            (run / file).write_text(text + "\n" + '{"step": 2, "reward_mean": 0.5}\n')
        (run / "loadbearing").mkdir()
        (run / "loadbearing" / "perturb-x.json").write_text(text)
        (run / "checkpoints" / "step-000002").mkdir()
        for file in ("manifest.json", "trainer_state.json", "adapter_config.json"):
            (run / "checkpoints" / "step-000002" / file).write_text(text)
        for file in ("rows.jsonl", "rows.json", "trainer_state.json", "x.log"):
            (folder / file).write_text(text + "\n")
        for words in place.some(
            (
                ["diagnose", "run"],
                ["report", "run", "-o", "out"],
                ["eval", "run", "--checkpoints", "best"],
                ["eval", "run"],
                ["train", "--resume", "run"],
                ["export", "run", "--to", "x"],
                ["diagnose", "rows.jsonl"],
                ["diagnose", "rows.json"],
                ["diagnose", "trainer_state.json"],
                ["diagnose", "x.log"],
                ["audit", "rows.jsonl", "--reader", str(place.model), "--dry-run"],
                ["audit", "rows.json", "--reader", str(place.model), "--dry-run"],
                ["train", "--task", "custom", "--data", "rows.jsonl", "--model", str(place.model), "--out", "new"],
                ["train", "--task", "custom", "--data", "rows.json", "--model", str(place.model), "--out", "new"],
            )
        ):
            yield case(f"JSON: {name}: {' '.join(words[:2])}", call(*words, cwd=folder, seconds=60))


def _empty_run(place: Place, run: Path, config: str) -> Path:
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(config)
    (run / "metrics.jsonl").write_text('{"step": 1, "reward_mean": 0.5}\n')
    return run


def no_files(place: Place) -> Iterator[Case]:
    """Pipes, devices, sockets, directories, links that loop or lead nowhere, in place of every argument that names a file,
    and among the files of a directory: one line, and nothing is waited for."""
    folder = place.new("odd")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    (folder / "random.jsonl").symlink_to("/dev/urandom")
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    (folder / "nowhere.jsonl").symlink_to("nothing")
    (folder / "directory.jsonl").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)
    listening.bind("socket.jsonl")
    os.chdir(here)
    (folder / "unreadable.jsonl").write_bytes(b"\xff\xfe" * 1000)
    (folder / "good.log").write_text("{'loss': 0.1, 'reward': 0.5, 'epoch': 0.1}\n" * 20)
    (folder / "inside").mkdir()
    (folder / "inside" / "up").symlink_to("..")
    model = str(place.model)
    for path in sorted(folder.glob("*.jsonl")):
        name = path.name
        for words in place.some(
            (
                ["diagnose", name],
                ["report", name, "-o", "out"],
                ["watch", name, "--idle", "0"],
                ["audit", name, "--reader", model],
                ["train", name],
                ["train", "--task", "custom", "--model", model, "--data", name, "--out", "new"],
                ["train", "--resume", name],
                ["eval", name],
                ["ask", model, "--text", name],
                ["diagnose", "good.log", "--plugin", name],
                ["diagnose", "good.log", "--map", name],
                ["sweep", name],
                ["train", "--model", name, "--out", "new"],
                ["audit", "good.log", "--reader", name],
                ["export", name, "--to", "x"],
                ["export", "good.log", "--to", name],
            )
        ):
            yield case(f"{' '.join(words).replace(model, 'MODEL')}", call(*words, cwd=folder, seconds=60))
    yield case("diagnose the directory", call("diagnose", ".", cwd=folder, seconds=60), 0, 3)
    for name in ("pipe", "zero", "loop", "nowhere", "socket", "directory", "random"):
        for file in ("config.yaml", "environment.json", "metrics.jsonl", "evals.jsonl", "samples.jsonl", "events.jsonl", ".lock"):
            run = place.new("run")
            short = "training: {steps: 1, eval_every: 0, checkpoint_every: 1}\nrollouts: {questions_per_step: 1, group_size: 2}\n"
            _empty_run(place, run / "run", f"model: {model}\ntask: arithmetic\n{short}")
            (run / "run" / file).unlink(missing_ok=True)
            (run / "run" / file).symlink_to(folder / f"{name}.jsonl")
            for words in place.some(
                (
                    ["diagnose", "run"],
                    ["report", "run", "-o", "out"],
                    ["eval", "run"],
                    ["train", "--resume", "run"],
                    ["watch", "run", "--idle", "0"],
                )
            ):
                yield case(f"{file} is {name}: {words[0]}", call(*words, cwd=run, seconds=60))
    listening.close()
