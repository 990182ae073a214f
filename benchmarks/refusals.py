"""How long a mistyped command takes to be refused: processor seconds of each, with all that Python needs to start.

    python benchmarks/refusals.py [--repeat 3]

Everything here can be known without a model, so torch (4 to 6 s of processor time) must not be imported. The aim is 0.6 s.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from statistics import median

# What is typed -> what the one line must say.
REFUSALS: dict[str, str] = {
    "ask runs/nothere 1+1": "'runs/nothere' does not exist",
    "ask embeded 1+1": "did you mean 'embedded'?",
    "ask embedded": "give a question",
    "eval embedded --limit -1": "--limit -1: must be at least 1",
    "eval embedded --option steps=1": "no option 'steps'",
    "eval embedded --split foo": "no split 'foo'",
    "eval embedded --checkpoints 99": "is a plain model and has no checkpoint '99'",
    "eval embedded --lengths 4": "--lengths: only for runs with chains",
    "demo --seed abc": "seed: Input should be a valid integer",
    "demo --resume runs/nothere": "--resume runs/nothere: does not exist",
    "train --model runs/nothere": "'runs/nothere' does not exist",
    "train --seed abc": "seed: Input should be a valid integer",
    "train --option steps=1": "no option 'steps'",
    "train --data nothere.jsonl --task custom": "nothere.jsonl: no such file",
    "train --resume runs/nothere": "--resume runs/nothere: does not exist",
    "train nothere.yaml": "nothere.yaml: cannot read",
    "perturb embedded --split foo": "no split 'foo'",
    "perturb embedded --perturbations foo": "--perturbations foo: unknown",
    "perturb embedded --against runs/nothere": "--against runs/nothere",
    "transfer embedded --readers embedded": "this is a plain model",
    "explain runs/nothere": "'runs/nothere' does not exist",
    "loadbearing runs/nothere": "'runs/nothere' does not exist",
    "audit nothere.jsonl --reader embedded": "nothere.jsonl: no such file",
    "export runs/nothere --to nowhere": "'runs/nothere' does not exist",
    "diagnose nothere": "nothere",
    "report nothere -o out": "nothere",
}


def seconds(command: str) -> float:
    """Processor seconds of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "markovlm", *command.split()], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 2 or REFUSALS[command] not in done.stderr:
        raise SystemExit(f"{command}: code {done.returncode}, {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    for command in REFUSALS:
        taken = [seconds(command) for _ in range(repeat)]
        print(f"{median(taken):.2f} s  markovlm {command}")


if __name__ == "__main__":
    main()
