"""Commands in processes of their own, killed, starved and timed; and what a command must never do."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]
MEMORY = 24 << 30  # bytes of data: a command that wants more is ended by it, and not the machine
LIMIT = 2_000  # MB of resident memory beyond what it starts with
SECONDS = 60.0  # of computing
PATIENCE = 300.0  # seconds, for what waits or has to share the processor
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was tried. `fault` says what should not have happened; empty: nothing."""

    name: str
    fault: str = ""
    more: str = ""  # what the table says beside the count


@dataclass(slots=True)
class Place:
    """Where parts work, and what they work with."""

    path: Path
    model: Path  # a tiny model made by save_pretrained
    seed: int
    kills: int
    share: float = 1.0  # of the cases that are tried
    made: dict[str, Path] = field(default_factory=dict)  # things that several parts use, by name; shared by all parts
    _drawn: int = 0

    def new(self, name: str) -> Path:
        """An empty directory."""
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.path))
        return made

    def some(self, all_of_them: Iterable[T]) -> list[T]:
        """A random `share` of them, at least one, in random order; all of them in their own where the share is 1."""
        items = list(all_of_them)
        if self.share == 1:
            return items
        self._drawn += 1
        chosen = random.Random(f"{self.seed} {self._drawn}").sample(range(len(items)), max(1, round(self.share * len(items))))
        return [items[index] for index in chosen]


Part = Callable[[Place], Iterator[Case]]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    words: tuple[str, ...]
    code: int  # negative: the signal
    out: str
    err: str
    seconds: float
    memory: float  # MB of resident memory, beyond what the process began with
    late: str

    def fault(self, *codes: int, most: float = LIMIT) -> str:
        """What it did that no command may do: a traceback, another exit code than `codes` (default: any of ours), no end, more memory."""
        said = [line for line in self.err.splitlines() if line.startswith("markovlm") and ": note: " not in line]
        wanted = codes or (0, 1, 2, 3)
        if self.late:
            return self.late
        if "Traceback" in self.err or "Traceback" in self.out:
            return f"traceback: {self.err.strip().splitlines()[-1][:160]}"
        if self.code not in wanted:
            return f"exit code {self.code} where {' or '.join(map(str, wanted))} is right: {self.err[-160:]!r}"
        if self.code in (1, 2) and len(said) != 1:
            return f"{len(said)} lines of error where one is right: {self.err[-160:]!r}"
        if self.memory > most:
            return f"{self.memory:,.0f} MB of memory"
        if found := _CONTROL.search(self.out + self.err):
            return f"a control character on the terminal: {found[0]!r}"
        return ""


def call(
    *words: str | Path,
    cwd: Path,
    seconds: float = SECONDS,
    kill: float | None = None,
    how: int = signal.SIGKILL,
    env: dict[str, str] | None = None,
) -> Done:
    """`markovlm WORDS` in a fork of this process, which has torch imported and has computed nothing. `kill`: after so many seconds."""
    return wait(start(*words, cwd=cwd, env=env), seconds, kill, how)


@dataclass(slots=True)
class Started:
    """A command that is running."""

    words: tuple[str, ...]
    pid: int
    files: tuple[Path, Path]
    began: float


def start(*words: str | Path, cwd: Path, env: dict[str, str] | None = None, work: Callable[[], int] | None = None) -> Started:
    """Begin a command (or `work`)."""
    texts = tuple(map(str, words))
    handles = [tempfile.mkstemp(prefix="chaos-") for _ in range(2)]
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(texts, cwd, env or {}, [handle for handle, _ in handles], work)
    for handle, _ in handles:
        os.close(handle)
    return Started(texts, pid, (Path(handles[0][1]), Path(handles[1][1])), time.monotonic())


def _child(
    words: tuple[str, ...], cwd: Path, env: dict[str, str], handles: Sequence[int], work: Callable[[], int] | None
) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(cwd)
        os.environ.update(env)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, handle in enumerate(handles, 1):
            os.dup2(handle, number)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))  # not of addresses: the drawer of figures reserves more
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from markovlm.cli.main import main

        code = work() if work is not None else main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(started: Started, seconds: float = SECONDS, kill: float | None = None, how: int = signal.SIGKILL) -> Done:
    """Its end; it is killed with all that it started where it takes longer than `seconds`."""
    late, began = "", started.began
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    killed = False
    while True:
        pid, status, usage = os.wait4(started.pid, os.WNOHANG)
        if pid:
            break
        passed = time.monotonic() - began
        if kill is not None and not killed and passed >= kill:
            os.kill(started.pid, how)
            killed = True
        if not late and (passed >= max(PATIENCE, PATIENCE / SECONDS * seconds) or _computed(started.pid) >= seconds):
            late = f"no end after {passed:.0f} s, {_computed(started.pid):.0f} s of them computing"
            os.killpg(started.pid, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    texts = []
    for file in started.files:
        texts.append(file.read_bytes()[: 8 << 20].decode("utf-8", "replace"))
        file.unlink()
    code = os.waitstatus_to_exitcode(status)
    time_of_it = time.monotonic() - began
    return Done(started.words, code, texts[0], texts[1], time_of_it, (usage.ru_maxrss - before) / 1024, late)


def _computed(pid: int) -> float:
    """Seconds of processor time that a process has taken so far: on a busy machine it says more than the clock."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def case(name: str, done: Done, *codes: int, also: str = "", most: float = LIMIT) -> Case:
    """A case from a command that must end with one of `codes`; `also`: another fault."""
    fault = done.fault(*codes, most=most) or also
    return Case(name, fault and f"{name} ({' '.join(done.words)[:60]}): {fault}")


def tried(name: str, work: Callable[[], object]) -> Case:
    """A case from something that asserts."""
    try:
        work()
    except AssertionError as error:
        return Case(name, f"{name}: {' '.join(str(error).split())[:200] or 'assertion'}")
    return Case(name)


def leftovers(folder: Path) -> list[str]:
    """Temporary names below a directory."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*.tmp"))
