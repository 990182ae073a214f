"""What a checkpoint consists of, so that a damaged one, or one mixed from two, is never taken for an intact one.

`manifest.json` is written last: run, step, base model, and the size and SHA-256 of every other file. `check_checkpoint` compares them
wherever a checkpoint is opened; nothing else decides whether one is intact. A manifest finds accidents, not forgeries: it isn't signed.
Files that the manifest does not name may be added (a model card); those that it names may not change. Commands that only read the
adapter accept that the trainer's files are gone: people delete them to save space.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from markovlm._version import __version__
from markovlm.config import CHANGEABLE, RunConfig, flatten
from markovlm.content import read_content
from markovlm.errors import MarkovlmError, Note, UserError
from markovlm.models.fingerprint import base_fingerprint
from markovlm.models.language import LanguageModel
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import replace_whole

MANIFEST = "manifest.json"
STATE_FILE = "trainer_state.json"
OPTIMIZER_FILE = "optimizer.pt"
READER_FILE = "reader.safetensors"  # the slow reader's weights
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_OF_TRAINER = (STATE_FILE, OPTIMIZER_FILE, READER_FILE)
_SHOWN = 3  # faults, and whole checkpoints, in a message
_MOST = 1 << 20  # bytes of a manifest or environment.json that are read

_accepted: ContextVar[bool] = ContextVar("accept_damaged", default=False)
_whole: set[tuple[Any, ...]] = set()  # files that this process has hashed and found right, by path, inode, size, time and hash


class Entry(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(strict=True, frozen=True)

    bytes: int = Field(ge=0)
    sha256: str


class Manifest(BaseModel):
    """manifest.json."""

    model_config = ConfigDict(strict=True, frozen=True)

    markovlm: str  # version that wrote it
    run: str  # `run_identity`; "" where the run was started by a version without one
    step: int
    base_fingerprint: str
    interim: bool = False  # saved because the run ended there; dropped when the next regular one is written
    files: dict[str, Entry]
    replaced: dict[str, Entry] = {}  # what files were before: right too, while they are being replaced


class Recorded(BaseModel):
    """The part of environment.json that checkpoints and models are compared with."""

    run: str = ""
    base_fingerprint: str = ""
    dtype: str = ""
    quantization: str = "none"
    transformers: str = ""


class DamagedCheckpoint(UserError):
    """A checkpoint that is not what was saved."""


@contextlib.contextmanager
def accept_damaged(accept: bool = True) -> Iterator[None]:
    """Within this context damaged checkpoints are used as they are, with a warning and an event in their run (`--force`)."""
    token = _accepted.set(accept)
    try:
        yield
    finally:
        _accepted.reset(token)


def run_identity(config: RunConfig, base_fingerprint: str) -> str:
    """A hash of the base and of every key that can change a number: two runs share it only if they compute the same."""
    numbers = {
        key: value
        for key, value in flatten(config.model_dump(mode="json")).items()
        if key not in CHANGEABLE and not key.startswith("logging.")
    }
    text = json.dumps([numbers, base_fingerprint], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


# ---------------------------------------------------------------------------------------------------------- writing


def write_manifest(
    directory: Path, recorded: Recorded, step: int, *, names: Sequence[str] | None = None, interim: bool = False
) -> None:
    """Write the manifest of a directory (or of the files in `names`). To be called once all of them are written."""
    files = {name: _entry(directory / name) for name in names or sorted(path.name for path in directory.iterdir())}
    made = Manifest(
        markovlm=__version__,
        run=recorded.run,
        step=step,
        base_fingerprint=recorded.base_fingerprint,
        interim=interim,
        files=files,
    )
    replace_whole(directory / MANIFEST, _text(made))


def replace_file(directory: Path, name: str, data: bytes) -> None:
    """Replace a file of a checkpoint and its entry in the manifest. The checkpoint stays intact if the process is killed in between."""
    made = read_manifest(directory)
    if made is not None:
        new = Entry(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        files, before = {**made.files, name: new}, {name: made.files[name]} if name in made.files else {}
        replace_whole(directory / MANIFEST, _text(made.model_copy(update={"files": files, "replaced": before})))
        replace_whole(directory / name, data)
        replace_whole(directory / MANIFEST, _text(made.model_copy(update={"files": files, "replaced": {}})))
    else:
        replace_whole(directory / name, data)


def _text(made: Manifest) -> bytes:
    return (made.model_dump_json(indent=1, exclude_defaults=True) + "\n").encode()


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        return Entry(bytes=os.fstat(file.fileno()).st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


# ---------------------------------------------------------------------------------------------------------- checking


def check_checkpoint(directory: Path, *, training: bool = False) -> None:
    """Check that a checkpoint is what was saved, before anything of it is read. `training`: the trainer's files are needed too.

    Raises DamagedCheckpoint in one line that names the file and the intact checkpoints; inside `accept_damaged` it warns instead and
    writes an event to the run. A checkpoint of an earlier version, which has no manifest, is accepted with a note.
    """
    faults = _faults(directory, training)
    if not faults:
        return
    said = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
    if not _accepted.get():
        raise damaged(directory, said, training=training, force=True)
    _force(_run_of(directory), _step_of(directory) or 0, f"{directory}: {said}")


def check_base(run: RunDirectory, lm: LanguageModel, fingerprint: str | None = None) -> None:
    """Raise UserError if this is not the base model that the run was trained on; inside `accept_damaged`, warn and write an event.

    Weights in another precision can't be compared: without a `fingerprint` they are accepted unchecked.
    """
    was, dtype = recorded(run.path), str(lm.dtype).removeprefix("torch.")
    same_kind = was.dtype in ("", dtype) and was.quantization == lm.quantization
    if not was.base_fingerprint or (fingerprint is None and not same_kind):
        return
    now = base_fingerprint(lm) if fingerprint is None else fingerprint
    if now == was.base_fingerprint:
        return
    said = (
        f"the base model {lm.name!r} is not the one this run was trained on "
        f"(fingerprint {now[:12]}, recorded {was.base_fingerprint[:12]}"
    )
    if not same_kind:
        said += f"; it is now loaded in {dtype} with quantization {lm.quantization}, and was in {was.dtype} with quantization {was.quantization}"
    elif was.transformers not in ("", installed := version("transformers")):
        said += f"; transformers is {installed} and was {was.transformers}, which may name the weights differently"
    if not _accepted.get():
        raise UserError(f"{run.path}: {said}); restore that model, or use this one with --force")
    _force(run, 0, f"{said})")


def _force(run: RunDirectory | None, step: int, said: str) -> None:
    """Damage is accepted: with a warning, and an event of the run."""
    warnings.warn(
        f"{run.path if run is not None else ''}: {said}; used all the same (--force)".removeprefix(": "), Note, stacklevel=3
    )
    if run is not None and int(os.environ.get("RANK", "0")) == 0:
        with contextlib.suppress(MarkovlmError, OSError):  # a run that may only be read
            run.event("forced", step, said)


def damaged(directory: Path, said: str, *, training: bool = True, force: bool = False) -> DamagedCheckpoint:
    """The error that names a damaged checkpoint and a remedy; all are made here. `force`: whether `--force` could use it."""
    whole = _whole_beside(directory, training)
    advice = [f"intact: {', '.join(path.name for path in whole)}"] if whole else []
    if training and whole:
        advice.append(f"delete {directory.name} to continue from {whole[0].name}")
    elif training and _run_of(directory) is not None:
        advice.append("no other checkpoint is intact")
    if force:
        advice.append("--force uses it as it is")
    return DamagedCheckpoint("; ".join([f"{directory}: {said}", *advice]))


def _whole_beside(directory: Path, training: bool) -> list[Path]:
    """The latest other checkpoints of the same run that are whole, those before this one first."""
    run, step = _run_of(directory), _step_of(directory)
    if run is None:
        return []
    others = sorted((s for s in run.saved_steps() if s != step), key=lambda s: (step is not None and s > step, -s))
    found: list[Path] = []
    for path in map(run.checkpoint, others):
        if not training or step is None or (_step_of(path) or 0) < step:  # training can only go on from an earlier one
            found += [path] if not _faults(path, training) else []
        if len(found) == _SHOWN:
            break
    return found


def is_whole(directory: Path, *, training: bool = False) -> bool:
    """Whether `check_checkpoint` would accept it."""
    return not _faults(directory, training)


def is_interim(directory: Path) -> bool:
    """Whether this checkpoint was saved only because the run ended there. False if its manifest can't be read."""
    try:
        made = read_manifest(directory)
    except DamagedCheckpoint:
        return False
    return made is not None and made.interim


def read_manifest(directory: Path) -> Manifest | None:
    """Read manifest.json; None if there is none. Raises DamagedCheckpoint if it can't be read."""
    try:
        text = _read(directory / MANIFEST)
        return None if text is None else Manifest.model_validate_json(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{directory / MANIFEST}: {_reason(error)}") from None


def recorded(run: Path) -> Recorded:
    """What environment.json of a run records; empty if there is none. Raises UserError if it can't be read."""
    path = run / "environment.json"
    try:
        text = _read(path)
        return Recorded() if text is None else Recorded.model_validate_json(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {_reason(error)}; restore it, or delete it (--resume then writes a new one)") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']})"
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"cannot be read ({said:.120})"


def _read(path: Path) -> bytes | None:
    """A small file; None if there is none."""
    try:
        return read_content(path, _MOST)
    except FileNotFoundError:
        return None


def _faults(directory: Path, training: bool) -> list[str]:
    """What is not as it was saved, file by file."""
    if not directory.is_dir():
        return ["is missing"]
    run = _run_of(directory)
    environment = recorded(run.path) if run is not None else Recorded()
    try:
        made = read_manifest(directory)
    except DamagedCheckpoint as error:
        return [str(error).removeprefix(f"{directory}/")]
    if made is None:
        if environment.run:
            return [f"{MANIFEST} is missing"]
        if run is not None:
            text = f"{run.path}: its checkpoints were saved by an earlier version, without {MANIFEST}, and can't be checked"
            warnings.warn(text, Note, stacklevel=2)
        return []
    step = _step_of(directory)
    faults: list[str] = []
    if step is not None and made.step != step:
        faults.append(f"holds step {made.step} according to its {MANIFEST}")
    if environment.run and made.run and made.run != environment.run:
        faults.append(f"belongs to another run ({made.run[:12]} in its {MANIFEST}, {environment.run[:12]} in environment.json)")
    elif environment.base_fingerprint and made.base_fingerprint not in ("", environment.base_fingerprint):
        faults.append(f"belongs to another base model (fingerprint {made.base_fingerprint[:12]} in its {MANIFEST})")
    for name, entry in made.files.items():
        fault = _fault(directory, name, [entry, *([made.replaced[name]] if name in made.replaced else [])], training)
        faults += [f"{name} {fault}"] if fault else []
    missing = [name for name in ADAPTER_FILES if name not in made.files]
    return faults + [f"{MANIFEST} does not name {name}" for name in missing]


def _fault(directory: Path, name: str, right: Sequence[Entry], training: bool) -> str | None:
    """What is wrong with one file."""
    if not re.fullmatch(r"[\w.-]+", name) or name in (".", ".."):
        return f"is not a valid file name ({MANIFEST})"  # of a stranger's checkpoint: it names no place outside
    try:
        about = (directory / name).stat()
        if not stat.S_ISREG(about.st_mode):
            return "is not a regular file"
        fitting = [entry.sha256 for entry in right if entry.bytes == about.st_size]
        if not fitting:
            return f"has {about.st_size:,} bytes, but {right[0].bytes:,} were saved"
        known = {(directory / name, about.st_ino, about.st_size, about.st_mtime_ns, sha) for sha in fitting}
        if known & _whole:
            return None
        found = _entry(directory / name).sha256
    except FileNotFoundError:
        return "is missing" if training or name not in _OF_TRAINER else None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found not in fitting:
        return f"is not the file that was saved (its SHA-256 is {found[:12]}, the saved file's {right[0].sha256[:12]})"
    _whole.update(one for one in known if one[-1] == found)
    return None


def _run_of(directory: Path) -> RunDirectory | None:
    """The run that a checkpoint lies in; None of an adapter elsewhere."""
    place = directory.absolute().parent
    return RunDirectory(place.parent) if place.name == "checkpoints" and (place.parent / "config.yaml").is_file() else None


def _step_of(directory: Path) -> int | None:
    match = re.fullmatch(r"step-([0-9]{1,18})", directory.absolute().name)
    return int(match[1]) if match else None
