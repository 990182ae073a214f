"""Memory and time of a training step on chains of growing length: `python benchmarks/chains.py [--model M] [--lengths 4,16,64]`.

One process a length, so that the resident peak is that length's own. Prints a JSON object a line: chunks, wall and CPU seconds of a step (the
second of two), the process's peak resident memory before the steps and after them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time


def measure(model: str, chunks: int, texts: int, group: int) -> dict[str, float]:
    """Two steps on ledgers of `chunks` chunks."""
    import torch

    from markovlm.config import build_config
    from markovlm.objectives import build_objective
    from markovlm.rewards import build_reward
    from markovlm.runs.setup import load_for_training, prepare
    from markovlm.training.distributed import World
    from markovlm.training.questions import Questions
    from markovlm.training.readers import reading_room
    from markovlm.training.records import Learner
    from markovlm.training.step import take_step

    torch.set_num_threads(1)
    keys = {
        "model": model,
        "task": "ledger",
        "task_options": {"chunks": chunks},
        "chain": {"kind": "notes_then_questions", "state_tokens": 24, "reward": "both"},
        "rollouts": {"questions_per_step": texts, "group_size": group},
        "training": {"eval_every": 0, "lr": 1e-4},
    }
    setup = prepare(build_config(keys), trainable=True)
    parameters = [parameter for _, parameter in setup.lm.adapter_parameters()]
    learner = Learner(
        setup.config,
        setup.lm,
        setup.prompter,
        setup.sampler(),
        build_objective(setup.config.objective),
        build_reward(setup.config.objective),
        reading_room(setup),
        torch.optim.AdamW(parameters, lr=0.0),
        World(),
        "shared",
    )
    questions = Questions(load_for_training(setup).train["ledger"].examples, 0)
    before = _peak()
    seconds = cpu_seconds = 0.0
    for step in (1, 2):
        began, cpu_began = time.perf_counter(), time.process_time()
        take_step(learner, questions.of_step(step, texts), step)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "chunks": chunks,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),  # the one to compare on a machine that others use too
        "peak_mib_before": _peak_mib(before),
        "peak_mib": _peak_mib(_peak()),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _peak_mib(kib: int) -> float:
    return round(kib / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="embedded", help="any model: its weights are not asked to know ledgers")
    parser.add_argument("--lengths", default="4,16,64")
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measure(given.model, given.one, given.texts, given.group)))
        return
    for length in map(int, given.lengths.split(",")):
        shared = ["--model", given.model, "--texts", str(given.texts), "--group", str(given.group)]
        done = subprocess.run(
            [sys.executable, __file__, *shared, "--one", str(length)], check=True, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
