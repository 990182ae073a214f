"""One optimisation step of markovlm against TRL's `GRPOTrainer`, turn by turn.

    make .venv-trl/.installed                                                     # once: TRL in an environment of its own
    OMP_NUM_THREADS=1 python benchmarks/against_trl.py                                    # the embedded model, prompt of about 17 tokens
    OMP_NUM_THREADS=1 python benchmarks/against_trl.py --prompt plain                     # about 150
    OMP_NUM_THREADS=1 python benchmarks/against_trl.py --model random-llama --size 25m --questions 1 --cot-tokens 100 --prompt plain
    OMP_NUM_THREADS=1 python benchmarks/against_trl.py --actor-reward 0                   # as near to TRL's work as there is a setting for
    OMP_NUM_THREADS=1 python benchmarks/against_trl.py --model DIR --ended      # DIR: `markovlm export RUN --merge --to DIR`; as late in a run

Both sides: the same model, LoRA adapter, prompts, group, number of sampled tokens (end tokens masked until the last), one
micro-batch, AdamW. The work is *not* the same, and markovlm's is more: it also makes the frozen model's baseline CoT (`--baseline-every`),
scores the answer behind every CoT with gradient, and computes the KL over the whole vocabulary, where TRL takes an estimate from
the sampled token alone and a reward that costs nothing. TRL runs in a process of its own that waits for its turn, so the two never
compute at the same time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from step import PHASES, SIZES, Side, alternate, learner, questions_of, random_llama, ratio_interval, run_config
from turns import Turns

from markovlm.config.schedule import Schedule
from markovlm.models.registry import resolve
from markovlm.runs.setup import prepare
from markovlm.training.step import take_step

ROOT = Path(__file__).resolve().parents[1]


def other(python: Path, settings: dict[str, Any], folder: Path) -> Turns:
    """TRL's trainer."""
    job = folder / "job.json"
    job.write_text(json.dumps(settings))
    return Turns("TRL", [str(python), str(Path(__file__).with_name("against_trl_side.py")), str(job)], folder)


def settings_of(arguments: argparse.Namespace, model: str, prompts: Sequence[str], lora: Any) -> dict[str, Any]:
    return {
        "model": model,
        "prompts": list(prompts),
        "questions": arguments.questions,
        "group": arguments.group,
        "tokens": arguments.cot_tokens,
        "ended": arguments.ended,
        "steps": arguments.repeats + 1,
        "lora": {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": lora.targets},
    }


def table(sides: Sequence[Side], arguments: argparse.Namespace, prompt_tokens: int, version: str) -> str:
    ours, theirs = sides
    median, low, high = ratio_interval(ours.totals(), theirs.totals())
    seconds = [statistics.median(side.totals()) for side in sides]
    phases = ", ".join(f"{phase} {ours.phase(phase):.2f}" for phase in PHASES)
    return "\n".join(
        [
            f"{arguments.questions} questions x {arguments.group} CoTs x {'at most ' * arguments.ended}{arguments.cot_tokens} tokens, "
            f"prompts of about {prompt_tokens}, "
            f"{arguments.model} {arguments.size if arguments.model == 'random-llama' else ''}, float32, {torch.get_num_threads()} CPU thread(s), "
            f"n={arguments.repeats} steps each" + ", no gradient through the answers" * (arguments.actor_reward == 0),
            "",
            f"| | markovlm, baseline every {arguments.baseline_every} | TRL {version} | TRL / markovlm |",
            "|---|---|---|---|",
            f"| step, median seconds | {seconds[0]:.3f} | {seconds[1]:.3f} | {median:.2f} [{low:.2f}, {high:.2f}] |",
            "",
            f"markovlm by phase, medians: {phases}. In brackets: 95 % bootstrap interval of the median ratio of neighbouring steps.",
        ]
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--trl-python", type=Path, default=ROOT / ".venv-trl" / "bin" / "python", help="of an environment with TRL"
    )
    parser.add_argument("--model", default="embedded", help="embedded, random-llama or a directory")
    parser.add_argument("--size", default="25m", choices=SIZES, help="of random-llama")
    parser.add_argument("--prompt", default="compact", choices=["compact", "plain"], help="plain is long")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--cot-tokens", type=int, default=44)
    parser.add_argument("--ended", action="store_true", help="CoTs end by themselves, after --cot-tokens at the latest")
    parser.add_argument("--baseline-every", type=int, default=5, help="as in training; 1 for the baseline CoT in every step")
    parser.add_argument(
        "--actor-reward", type=float, default=1.0, help="weight of the gradient through the answers; 0: none, as TRL"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    arguments.device, arguments.dtype, arguments.microbatch_tokens = "cpu", "float32", 1 << 20
    if not arguments.trl_python.exists():
        raise SystemExit(f"--trl-python {arguments.trl_python}: not there; make .venv-trl/.installed makes one")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = (
            str(random_llama(folder / "model", arguments.size, None)) if arguments.model == "random-llama" else arguments.model
        )
        config = run_config(arguments, model)
        weight = Schedule.constant(arguments.actor_reward)
        objective = config.objective.model_copy(
            update={"baseline_every": arguments.baseline_every, "actor_reward_weight": weight}
        )
        rollouts = config.rollouts.model_copy(update={"fixed_length": not arguments.ended})
        setup = prepare(config.model_copy(update={"objective": objective, "rollouts": rollouts}), trainable=True)
        torch.manual_seed(arguments.seed)
        questions = questions_of(setup, arguments.questions)
        asked = [setup.prompter.cot_prompt(q) for number in range(arguments.repeats + 1) for q in questions(number)]
        prompts = [setup.lm.tokenizer.decode(prompt) for prompt in asked]
        length = round(statistics.fmean(map(len, asked)))
        theirs = other(arguments.trl_python, settings_of(arguments, str(resolve(model)), prompts, setup.config.lora), folder)
        made = learner(setup, lambda parameters: torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0), "shared")
        counter = iter(range(1, 10_000))
        sides = [
            Side("markovlm", lambda asked: take_step(made, asked, next(counter)).seconds),
            Side("TRL", lambda _: {"step": theirs.step()["seconds"]}),
        ]
        try:
            alternate(sides, questions, arguments.repeats, setup.lm.device)
        finally:
            theirs.end()
    print(table(sides, arguments, length, theirs.first["trl"]))


if __name__ == "__main__":
    sys.exit(main())
