"""Kills at random moments: of training under every objective, of every other command, of one of several processes, of cells."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos_parts.harness import Case, Place, call, leftovers, start, tried, wait
from support import processes, runs, tiny

KINDS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"objective__name": "dr_grpo"},
    "rloo": {"objective__name": "rloo"},
    "reinforce": {"objective__name": "reinforce", "objective__baseline_every": 1},
    "ema": {"objective__name": "ema", "objective__baseline_every": 1},
    "expert_iteration": {
        "objective__name": "expert_iteration",
        "objective__baseline_every": 1,
        "objective__warmup_batches": 2,
        "objective__threshold_std": 0.1,
    },
    "ppo": {"objective__name": "ppo"},
    "ppo_frozen_anchor": {
        "objective__name": "ppo_frozen_anchor",
        "objective__kl_weight": 0.0,
        "objective__actor_reward_weight": 0.0,
    },
    "slow reader": {"objective__reader": "ema", "objective__actor_reward_weight": 0.0},
    "chains": {
        "task": "ledger",
        "task_options": {"chunks": 3},
        "chain__kind": "notes_then_questions",
        "chain__reward": "both",
        "rollouts__max_cot_tokens": 8,
        "evaluation__dev_size": 2,
    },
}
_A_RUN = 4  # kills of one run before it is left alone


def config(place: Place, kind: str, **more: Any) -> Any:
    model = "embedded" if kind == "chains" else place.model
    return runs.run_config(model, **{**KINDS[kind], **more})


def trainer(place: Place, kind: str, out: Path) -> Callable[[], int]:
    def work() -> int:
        from markovlm.training.loop import train

        runs.resume(out) if (out / "config.yaml").exists() else train(config(place, kind), out)
        return 0

    return work


def training(place: Place) -> Iterator[Case]:
    """A run is killed (SIGKILL, SIGTERM or Ctrl-C) at moments drawn uniformly over its length, resumed, and compared with an
    undisturbed one: every file, byte for byte, except events and the times in rows."""
    rng = random.Random(place.seed)
    each = -(-place.kills // len(KINDS))
    for kind in place.some(KINDS):
        folder = place.new("kills")
        whole = wait(start("train", kind, cwd=folder, work=trainer(place, kind, folder / "whole")), 600)
        yield Case(f"{kind}: left alone", whole.fault(0))
        left = each
        while left:
            out = folder / f"killed-{left}"
            done = min(left, _A_RUN)
            left -= done
            moments = []
            for _ in range(done):
                how = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
                moment = rng.uniform(0.0, whole.seconds)
                moments.append(f"{how.name} at {moment:.2f} s")
                wait(start("train", kind, cwd=folder, work=trainer(place, kind, out)), 600, moment, how)
            for _ in range(3):  # SIGTERM may have ended the last attempt early
                end = wait(start("train", kind, cwd=folder, work=trainer(place, kind, out)), 600)
            fault = end.fault(0)
            same = tried(kind, lambda out=out, folder=folder: runs.assert_same_directory(out, folder / "whole"))
            for moment in moments:
                yield Case(f"{kind}: {moment}", (fault or same.fault) and f"{moments}: {fault or same.fault}")
            shutil.rmtree(out, ignore_errors=True)


def finished_run(place: Place) -> Path:
    """A run that several parts look at."""
    if "run" not in place.made:
        out = place.model.parent / "finished"
        place.made["run"] = out
        wait(start("train", cwd=place.path, work=trainer(place, "grpo", out)), 600)
        place.made["other"] = out.with_name("other")
        wait(start("train", cwd=place.path, work=trainer(place, "rloo", place.made["other"])), 600)
    return place.made["run"]


def audit_file(folder: Path) -> Path:
    rows = [
        {"question": f"{a}+{b}", "cot": f"{a}+{b} is {a + b}.", "answer": str(a + b)} for a in range(1, 5) for b in range(1, 4)
    ]
    path = folder / "cots.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def commands(place: Place, folder: Path) -> dict[str, tuple[list[str | Path], str]]:
    """Name -> words and what they write, relative to `folder`, which has a copy of the finished run in `run`."""
    few = ["--limit", "4"]
    return {
        "eval": (["eval", "run", "--checkpoints", "all", "--baseline", "--limit", "8"], "run"),
        "perturb": (["perturb", "run", *few, "--only", "delete,truncate_back"], "run"),
        "transfer": (["transfer", "run", "--readers", str(place.model), *few, "--checkpoints", "3,7"], "run"),
        "explain": (["explain", "run", *few], "run"),
        "resample": (["explain", "run", "--how", "resample", "--resamples", "3", "--limit", "2"], "run"),
        "export": (["export", "run", "--to", "adapter"], "adapter"),
        "export --merge": (["export", "run", "--to", "merged", "--merge"], "merged"),
        "report": (["report", "run", "-o", "report"], "report"),
        "audit": (
            ["audit", "cots.jsonl", "--reader", str(place.model), "--only", "legibility,leak", "--out", "audited"],
            "audited",
        ),
    }


def other_commands(place: Place) -> Iterator[Case]:
    """eval, perturb, transfer, explain, resample, export, report and audit are killed (SIGKILL) at random moments and called
    again. The result equals that of an undisturbed call, and no temporary name is left."""
    rng = random.Random(place.seed + 1)
    finished = finished_run(place)
    each = max(1, place.kills // 25)

    def fresh(name: str) -> Path:
        folder = place.new(name.replace(" ", "-"))
        shutil.copytree(finished, folder / "run")
        audit_file(folder)
        return folder

    for name, (words, product) in place.some(commands(place, place.path).items()):
        alone = fresh(name)
        whole = call(*words, cwd=alone, seconds=600)
        yield Case(f"{name}: left alone", whole.fault(0))
        for _ in range(each):
            folder = fresh(name)
            moment = rng.uniform(0.0, whole.seconds)
            call(*words, cwd=folder, seconds=600, kill=moment)
            again = call(*words, cwd=folder, seconds=600)
            if again.code == 2 and "exists; name a new directory" in again.err:  # export had finished when it was killed
                again = whole
            same = tried(name, lambda f=folder, a=alone, p=product: _same(f / p, a / p))
            left = leftovers(folder)
            yield Case(f"{name}: killed", again.fault(0) or same.fault or (f"{name}: left {left}" if left else ""))
            shutil.rmtree(folder)


_UNLIKE = ("events.jsonl", "report.html", "report.md", ".lock")  # they have the time in them


def _same(ours: Path, theirs: Path) -> None:
    mine, other = runs.contents(ours), runs.contents(theirs)
    assert sorted(mine) == sorted(other), sorted(set(mine) ^ set(other))[:5]
    unlike = [
        name for name in mine if Path(name).name not in _UNLIKE and _timeless(name, mine[name]) != _timeless(name, other[name])
    ]
    assert not unlike, unlike[:5]


def _timeless(name: str, content: Any) -> Any:
    if not name.endswith(".json"):
        return sorted(map(json.dumps, content)) if isinstance(content, list) else content
    return json.dumps(_without_times(json.loads(content)), sort_keys=True)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if "seconds" not in k and k not in ("time", "cost", "made")}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def several_processes(place: Place) -> Iterator[Case]:
    """One of two processes (gloo, torchrun) is killed, with the weights replicated or sharded over both (FSDP2). The other
    ends with one line, and the run can be resumed."""
    from markovlm.config import dump_yaml

    for strategy, victim in place.some(itertools.product(("ddp", "fsdp2"), (0, 1))):
        folder = place.new(f"two-{strategy}")
        made = tiny.config(
            place.model,
            training__steps=400,
            training__checkpoint_every=1,
            loading__dtype="float32",
            distributed__strategy=strategy,
        )
        (folder / "run.yaml").write_text(dump_yaml(made))

        def work(folder: Path = folder, victim: int = victim) -> None:
            processes.killed(folder / "run.yaml", folder / "run", victim)
            steps = processes.resumes(folder / "run", distributed={"strategy": "ddp"})
            assert steps == list(range(1, len(steps) + 1))

        yield tried(f"{strategy}: process {victim} killed", work)


BAD_CELLS = """
import os, signal
import torch
from markovlm import Options, Reward, register


class FailsOptions(Options):
    how: str = "error"


@register.reward("fails")
class Fails(Reward[FailsOptions]):
    Options = FailsOptions
    differentiable = False

    def value(self, answers):
        if not os.environ.get("MEND"):
            if self.options.how == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory (made up)")
            if self.options.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.options.how == "exit":
                os._exit(9)
            raise RuntimeError("a bug of the plug-in")
        return answers.logp_mean
"""


def sweeps(place: Place) -> Iterator[Case]:
    """Cells of a sweep raise, run out of memory, are killed or vanish. The others finish, the report is written, and once the
    cause is fixed the same command finishes the rest."""
    folder = place.new("sweep")
    (folder / "bad.py").write_text(BAD_CELLS)
    from markovlm.config import dump_yaml

    made = tiny.config(place.model, training__steps=2, training__eval_every=2)
    (folder / "base.yaml").write_text(dump_yaml(made))
    cells = [{"objective.reward": "logprob"}]
    cells += [
        {"objective.reward": "fails", "objective.reward_options": {"how": how}, "objective.actor_reward_weight": 0}
        for how in ("error", "memory", "kill", "exit")
    ]
    sweep = {"base": "base.yaml", "cells": cells, "retries": 1}
    (folder / "sweep.yaml").write_text(json.dumps(sweep))
    words = ["sweep", "sweep.yaml", "--plugin", "bad.py", "--out", "out", "--json"]
    env = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    first = call(*words, cwd=folder, seconds=900, env=env)
    yield Case("cells that fail", first.fault(0, 1))
    found = {cell["name"]: cell for cell in json.loads(first.out)["cells"]} if first.out.startswith("{") else {}
    done = sum(cell["status"] == "done" for cell in found.values())
    yield Case("the others finish", "" if (len(found), done) == (5, 1) else f"{done} of {len(found)} done: {first.err[-200:]}")
    for cell in found.values():
        if cell["status"] == "failed":
            yield Case(f"a failed cell: {cell['message']}", "" if cell["message"] else f"{cell['name']} failed without a word")
    mended = call(*words, cwd=folder, seconds=900, env={**env, "MEND": "1"})
    again = json.loads(mended.out)["cells"] if mended.out.startswith("{") else []
    whole = [cell["status"] for cell in again] == ["done"] * 5
    yield Case("mended and called again", mended.fault(0) or ("" if whole else f"not done: {mended.out[-300:]}"))
