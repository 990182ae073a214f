"""`diagnose` beside other packages that judge RL training logs, on the same logs, with the same counting for all.

    python benchmarks/rivals.py [--logs ../shared/data/rl-logs] [--faults ../shared/data/rl-faults] [--envs build/rivals] [--each]

Each package runs in an environment of its own, DIR/rival-NAME, which is made with the version in `PINNED` where it does not exist yet (ours is
the light install of this checkout). What is compared:

- *Logs.* `--logs`: real ones; those in `faults.BROKEN` collapsed, the other RL runs did not, but for those that lose half
  by the rule of detection.py: they are in neither count. `--faults`: constructed ones, with the verdict of
  `faults.FILES`. The constructed ones are also our own tests, so our numbers on them are no evidence; theirs are. Each launch in a file is a log.
- *Input.* One converter for all (`NAMES`): the rows as our readers parse them, under the names that each package expects, no key left out that
  it has a name for. Ours gets the same rows (as TRL's JSON lines) and, apart from that, the file itself; so do the others.
- *Verdict.* Its worst finding, by `LEVEL`. A crash, a timeout and output that cannot be read are `no verdict`, as is `unknown`.
- *Step.* The earliest step that its findings of the worst level name; from rldoctor's prose, as it has no field for it.
- *Speed.* CPU time of one cold verdict, without the conversion; *weight*: site-packages without pip and setuptools.

Names and texts of a log never reach a rival, only numbers do, and of what a rival prints only a level, a step and names of rules are used.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from detection import Run as Course
from detection import broke, watch
from faults import BROKEN, FILES, share

from markovlm.health.monitor import WATCHED
from markovlm.logs.find import read_runs
from markovlm.logs.records import RunData, training_rows

ROOT = Path(__file__).resolve().parents[1]
OURS = "markovlm"
PINNED: Mapping[str, str] = {"rldoctor": "0.2.0", "rlwatch": "0.5.1", "rlprobe": "0.1.0", "zen-rl": "0.1.0"}

# Ours -> the first line's packages' names. `kl` is the KL to the behaviour policy where a log has no other.
PACKAGES = ("trl", "rlwatch", "rlprobe", "zen-rl")
NAMES: Mapping[str, tuple[str | None, ...]] = {
    "reward_mean": ("reward", "reward_mean", "reward_mean", "rollout/ep_rew_mean"),
    "reward_std": ("reward_std", "reward_std", "reward_std", None),
    "groups_without_spread": ("frac_reward_zero_std", None, "zero_variance_group_frac", None),
    "kl": ("kl", "kl_divergence", "kl_mean", "train/approx_kl"),
    "entropy": ("entropy", "entropy", "entropy_mean", "train/entropy_loss"),
    "loss": ("loss", "loss", "loss", "train/policy_gradient_loss"),
    "grad_norm": ("grad_norm", "grad_norm", "grad_norm", None),
    "lr": ("learning_rate", "learning_rate", "lr", None),
    "ratio_clipped_fraction": ("clip_ratio/region_mean", "clip_fraction", "clip_fraction", None),
    "cot_length": ("completions/mean_length", None, "completion_len_mean", None),
    "cot_length_saturated_fraction": ("completions/clipped_ratio", None, "truncation_rate", None),
    "eval_reward": ("eval_reward", None, None, None),
    "eval_accuracy": ("eval_accuracy", None, None, None),
}
LEVEL: Mapping[str, str] = {
    "CRITICAL": "collapsed", "WARNING": "warn", "INFO": "healthy", "OK": "healthy",  # rldoctor; SKIPPED: no verdict
    "critical": "collapsed", "warning": "warn", "warn": "warn", "info": "healthy", "healthy": "healthy",  # rlwatch, rlprobe
    "LR_TOO_HIGH": "collapsed", "POLICY_COLLAPSE": "collapsed", "DEAD_RUN": "collapsed",  # zen-rl has names and no levels
    "ADVANTAGE_NOT_NORMALIZED": "warn", "CAPPED_PERFORMANCE": "warn",
    "collapsed": "collapsed",  # ours
}  # fmt: skip
FEED = Path(__file__).with_name("rivals_feed.py")  # run by the Python of a rival that reads no table


@dataclass(frozen=True)
class Log:
    """One launch of one file, and what is right to say of it."""

    path: Path
    number: int  # of the launch in its file
    real: bool
    wanted: frozenset[str]  # verdicts
    onset: int | None  # index of the row at which it broke, where that is known
    run: RunData = field(repr=False)

    @property
    def steps(self) -> list[int]:
        return [int(step) for step in training_rows(self.run)["step"]]


@dataclass(frozen=True)
class Said:
    verdict: str | None = None  # None: no verdict
    step: int | None = None
    rules: tuple[str, ...] = ()  # names of the findings of the worst level
    seconds: float = math.nan


# --- logs and their conversion -----------------------------------------------------------------------------------------


def logs_of(folder: Path, real: bool) -> Iterable[Log]:
    for path in sorted(folder.iterdir()):
        if path.name == "README.md" or (not real and path.stem not in FILES):
            continue
        for number, run in enumerate(read_runs([path])):
            if real and (not run.steps or run.training != "reinforcement"):
                continue
            if real:
                bad = any(name in path.name for name in BROKEN)
                frame = training_rows(run)
                rows = list(frame.select([key for key in ("step", *WATCHED) if key in frame.columns]).iter_rows(named=True))
                at = broke(rows)
                wanted = {"collapsed"} if bad else {"healthy"} if at is None else {"healthy", "warn", "collapsed"}
                yield Log(path, number, True, frozenset(wanted), at if bad else None, run)
            else:
                want, onset = FILES[path.stem][number]
                late = None if onset is None else sum(int(step) < sum(onset) / 2 for step in training_rows(run)["step"])
                yield Log(path, number, False, want.verdicts, late, run)


def converted(rows: Iterable[Mapping[str, Any]], package: str) -> list[dict[str, float]]:
    """Rows of our keys under the names of a package; only numbers, and only of keys in NAMES, besides the step."""
    place, out = PACKAGES.index(package), []
    for row in rows:
        known = dict(row) if row.get("kl") is not None else {**row, "kl": row.get("behavior_kl")}
        theirs = {names[place]: known.get(ours) for ours, names in NAMES.items()}
        numbers = {name: float(value) for name, value in theirs.items() if name is not None and value is not None}
        out.append({"step": int(row["step"]), **numbers})
    return out


# --- running them ------------------------------------------------------------------------------------------------------


def environment(envs: Path, name: str) -> Path | None:
    """The folder of a package's environment, made where there is none; None where it cannot be installed."""
    place = envs / f"rival-{name}"
    if not (place / "bin" / "python").exists():
        venv.create(place, with_pip=True)
        what = str(ROOT) if name == OURS else f"{name}=={PINNED[name]}"
        done = subprocess.run([place / "bin" / "python", "-m", "pip", "install", "-q", what], capture_output=True, check=False)
        if done.returncode:
            print(f"{name} cannot be installed here ({what}); it is left out", file=sys.stderr)
            (place / "bin" / "python").unlink()  # so that the next call tries again
            return None
    return place


def weight(place: Path) -> float:
    """MB on disk of what an environment has besides pip and setuptools."""
    (site,) = place.glob("lib/python*/site-packages")
    own = [p for p in site.iterdir() if not p.name.startswith(("pip", "setuptools", "_distutils", "pkg_resources"))]
    return sum(f.stat().st_blocks for p in own for f in (p.rglob("*") if p.is_dir() else [p]) if f.is_file()) * 512 / 2**20


def call(argv: Sequence[str | Path], home: Path, timeout: float) -> tuple[str | None, float]:
    """(what a command printed, its CPU seconds); None where it did not end in time or was killed. Exit codes carry verdicts."""
    kept = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "NO_COLOR": "1",
    }
    kept |= {"PYTHONPATH": str(ROOT / "src")} if Path(argv[0]).parts[-3] == f"rival-{OURS}" else {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(argv, cwd=home, env=kept, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return None, math.nan
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (None if done.returncode < 0 else done.stdout.decode("utf-8", "replace")), seconds


def command(name: str, place: Path, path: Path) -> list[str | Path]:
    """What a user would type to have `path` judged."""
    run = place / "bin" / "python"
    return {
        OURS: [run, "-m", "markovlm", "diagnose", path, "--json"],
        "rldoctor": [place / "bin" / "rldoctor", "diagnose", path, "--format", "json"],
        "rlwatch": [place / "bin" / "rlwatch", "diagnose", "--log-dir", path, "--run-id", "run", "--format", "json"],
        "rlprobe": [place / "bin" / "rlprobe", "doctor", path, "--json"],
        "zen-rl": [place / "bin" / "zen", path],
    }[name]


def worst(findings: Iterable[tuple[str, str, int | None]], none: str | None = "healthy") -> Said:
    """The verdict of (rule, level, step) triples; `none` where there are none."""
    by: dict[str, list[tuple[str, int | None]]] = {}
    for rule, level, step in findings:
        if level in LEVEL:
            by.setdefault(LEVEL[level], []).append((rule, step))
    verdict = next((v for v in ("collapsed", "warn", "healthy") if v in by), none)
    said = by.get(verdict or "", [])
    names = tuple(sorted({rule for rule, _ in said if re.fullmatch(r"[A-Za-z_]{1,40}", rule)}))
    return Said(verdict, min((step for _, step in said if step is not None), default=None), names)


def understood(name: str, text: str | None, number: int = 0) -> Said:
    """What a package's output says; no verdict where it cannot be read."""
    try:
        if text is None:
            return Said()
        if name == "zen-rl":
            steps = {key: int(n) for key, n in re.findall(r"Evidence: ([\w/]{1,60}) = \S+ at step (\d{1,12})", text)}
            kinds = {
                "LR_TOO_HIGH": "approx_kl",
                "POLICY_COLLAPSE": "entropy_loss",
                "ADVANTAGE_NOT_NORMALIZED": "policy_gradient_loss",
            }
            found = [m for m in re.findall(r"^[A-Z_]+$", text, re.MULTILINE) if m in LEVEL]
            if not found and "No known failure modes" not in text:
                return Said()
            return worst((m, m, steps.get(f"train/{kinds[m]}") if m in kinds else None) for m in found)
        data = json.loads(text)
        if name == "rldoctor":
            prose = [(f, re.search(r"step ~?(\d{1,12})\b", " ".join([f["summary"], *f["evidence"]]))) for f in data["findings"]]
            return worst(((f["detector"], f["severity"], int(m[1]) if m else None) for f, m in prose), none=None)
        if name == "rlwatch":
            return worst((a["detector"], a["severity"], int(a["step"])) for a in data["alerts"])
        if name == "rlprobe":
            return worst((f["signature_id"], f["severity"], f["first_step"]) for f in data)
        ours = data["runs"][number]
        return worst([((ours["cause"] or "").partition(":")[0], ours["verdict"], ours["onset_step"])], none=None)
    except (ValueError, KeyError, TypeError, IndexError):
        return Said()


def judge(name: str, place: Path, log: Log, raw: bool, timeout: float) -> Said:
    """One package's verdict of one log, from its converted rows or (`raw`) from the file itself."""
    with tempfile.TemporaryDirectory() as folder:
        home, rows = Path(folder), Path(folder) / "rows.jsonl"
        path = log.path.resolve() if raw else rows
        if not raw:
            frame = list(training_rows(log.run).iter_rows(named=True))
            theirs = converted(frame, name if name in PACKAGES else "trl")
            rows.write_text("".join(json.dumps(row) + "\n" for row in theirs), encoding="utf-8")
            if name in PACKAGES:
                path = home / "run"
                call([place / "bin" / "python", FEED, name, rows, path], home, timeout)
        text, seconds = call(command(name, place, path), home, timeout)
        said = understood(name, text, log.number if raw else 0)
        return Said(said.verdict, said.step, said.rules, seconds)


# --- counting ----------------------------------------------------------------------------------------------------------


def off(log: Log, said: Said) -> int | None:
    """Rows from the one at which a run broke to the one that is named (negative: earlier)."""
    return None if log.onset is None or said.step is None else sum(step < said.step for step in log.steps) - log.onset


def counts(said: Sequence[tuple[Log, Said]]) -> dict[str, str]:
    """One package's cells, by column."""

    def of(kind: str, real: bool) -> list[tuple[Log, Said]]:
        return [(log, s) for log, s in said if log.real == real and log.wanted == {kind}]

    def cell(among: Sequence[tuple[Log, Said]], *verdicts: str | None) -> str:
        return share(sum(s.verdict in verdicts for _, s in among), len(among))

    broken = [(log, s) for log, s in said if log.wanted == {"collapsed"}]
    found = [(log, s) for log, s in broken if s.verdict == "collapsed"]
    ill = [(log, s) for log, s in said if not log.real and "warn" in log.wanted]
    delays = sorted(d for log, s in found if (d := off(log, s)) is not None)
    return {
        "real collapses found": cell(of("collapsed", True), "collapsed"),
        "healthy real logs called collapsed": cell(of("healthy", True), "collapsed"),
        "... warned of": cell(of("healthy", True), "warn"),
        "constructed collapses found": cell(of("collapsed", False), "collapsed"),
        "other constructed faults, warned or worse": cell(ill, "warn", "collapsed"),
        "healthy constructed logs called collapsed": cell(of("healthy", False), "collapsed"),
        "nothing to judge, left alone": cell(of("unknown", False), "healthy", None),
        "no verdict": share(sum(s.verdict is None for _, s in said), len(said)),
        "collapses found that name a step": share(sum(s.step is not None for _, s in found), len(found)),
        "rows off": ", ".join(map(str, delays)) or "-",
        "CPU seconds": f"{median(s.seconds for _, s in said if not math.isnan(s.seconds)):.2f}",
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, default=ROOT.parent / "shared/data/rl-logs")
    parser.add_argument("--faults", type=Path, default=ROOT.parent / "shared/data/rl-faults")
    parser.add_argument("--envs", type=Path, default=ROOT / "build" / "rivals")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one call")
    parser.add_argument("--only", choices=(OURS, *PINNED), nargs="+", default=(OURS, *PINNED))
    parser.add_argument("--each", action="store_true", help="print every verdict that is not among the right ones")
    given: Any = parser.parse_args(argv)
    logs = [*logs_of(given.logs, True), *logs_of(given.faults, False)]
    console = [log for log in logs if log.number == 0 and log.path.suffix == ".log"]
    columns: dict[str, dict[str, str]] = {}
    for name in given.only:
        if (place := environment(given.envs.resolve(), name)) is None:
            continue
        for raw in (True, False) if name == OURS else (False,):
            said = [(log, judge(name, place, log, raw, given.timeout)) for log in logs]
            read = said if raw else [(log, judge(name, place, log, True, given.timeout)) for log in console]
            title = f"{name}, the file" if raw else f"{name}, the rows" if name == OURS else f"{name} {PINNED[name]}"
            columns[title] = counts(said) | {
                "raw console logs read": share(sum(s.verdict is not None for log, s in read if log in console), len(console)),
                "MB": f"{weight(place):.0f}",
            }
            rules = Counter(rule for log, s in said if log.wanted == {"healthy"} and s.verdict == "collapsed" for rule in s.rules)
            print(f"{title}: called healthy logs collapsed for {dict(rules.most_common()) or 'nothing'}", flush=True)
            for log, s in said if given.each else ():
                if (s.verdict or "unknown") not in log.wanted:
                    print(f"    {log.path.name[-48:]!r} {log.number}: {s.verdict} {s.step}, {', '.join(s.rules)}", flush=True)
    late: list[float] = []
    for log in logs:
        if log.wanted == {"collapsed"} and log.onset is not None:
            at = watch(Course("", "", list(training_rows(log.run).iter_rows(named=True))), False)["collapsed"]
            late.append(math.inf if at is None else at - log.onset)
    print(f"live, row by row: {OURS} says collapsed {', '.join(f'{d:g}' for d in sorted(late))} rows after the row that broke")
    print(f"\n| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for row in next(iter(columns.values())):
        print(f"| {row} | {' | '.join(column[row] for column in columns.values())} |")


if __name__ == "__main__":
    main()
