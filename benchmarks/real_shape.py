"""A training step at the shape of a real language model: markovlm, TRL's `GRPOTrainer`, and the plain loop of `step.py`, turn by turn.

    make .venv-trl/.installed                                                # once: TRL in an environment of its own
    OMP_NUM_THREADS=1 python benchmarks/real_shape.py                        # smollm2: 1 x 16 x 50 and 2 x 16 x 100, prompts of 100 tokens
    OMP_NUM_THREADS=1 python benchmarks/real_shape.py --vocabulary 262144 --shapes 1x16x50      # random weights, hidden 576, 30 layers
    OMP_NUM_THREADS=1 python benchmarks/real_shape.py --sides markovlm --profile               # where the time goes, by operation
    OMP_NUM_THREADS=1 python benchmarks/real_shape.py --evaluate 64                            # questions a second, against the plain loop

Each side is a process of its own that makes one step when it is its turn, so that nothing is shared but the machine, and peak memory (VmHWM)
is each one's. The work is not the same. markovlm and the plain loop make the baseline CoT (markovlm in every fifth step, as in training; the
plain loop in every step), read the answers with gradient, and compute the KL over the whole vocabulary. TRL does none of these: it takes the KL from
the sampled tokens, and its reward costs nothing.

Seconds are of the processor (`time.process_time`, all threads of the process) and of the clock. On a machine that others use, the first say more.
The floor is what the arithmetic takes at the speed that one large product reaches here in the same minute.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from step import Reference, learner, ratio_interval
from turns import Turns

from markovlm.config import RunConfig, build_config, nest
from markovlm.models.registry import resolve
from markovlm.runs.setup import Setup, prepare
from markovlm.tasks.base import Example
from markovlm.training.shapes import Shape, read_shape
from markovlm.training.step import take_step

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("markovlm", "TRL", "plain loop")
LAYERS = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
MICROBATCH = 1 << 20  # tokens: the whole step in one


@dataclass(frozen=True)
class Work:
    """Questions x CoTs x tokens of a step."""

    questions: int
    group: int
    cot: int

    @classmethod
    def parse(cls, text: str) -> Work:
        return cls(*(int(part) for part in text.split("x")))

    def __str__(self) -> str:
        return f"{self.questions} x {self.group} x {self.cot}"


# ------------------------------------------------------------------------------------------------------------ one side


def configuration(model: str, work: Work, dtype: str) -> RunConfig:
    return build_config(
        nest(
            {
                "model": model,
                "task": "words",
                "loading.device": "cpu",
                "loading.dtype": dtype,
                "rollouts.questions_per_step": work.questions,
                "rollouts.group_size": work.group,
                "rollouts.max_cot_tokens": work.cot,
                "rollouts.fixed_length": True,
                "rollouts.batch_tokens": 1 << 22,
                "training.microbatch_tokens": MICROBATCH,
                "training.steps": 10_000,
                "training.lr": 1e-4,
                "training.eval_every": 0,
            }
        )
    )


def questions_of(setup: Setup, prompt: int) -> Callable[[int], Example]:
    """Word problems with words put in front until the prompt has `prompt` tokens, or as near as it gets."""
    stream = setup.load("train").examples

    def at(number: int) -> Example:
        example = stream[number]
        length = len(setup.prompter.cot_prompt(example))
        question = " ".join([*["so"] * max(0, prompt - length), example.question])
        return Example(example.id, question, example.answer)

    return at


def serve(arguments: argparse.Namespace) -> None:
    """One step for each line on standard input; seconds and peak memory on standard output."""
    work = Work.parse(arguments.shapes)
    setup = prepare(configuration(arguments.model, work, arguments.dtype), trainable=True)
    question = questions_of(setup, arguments.prompt)
    step = plain(setup, arguments.model) if arguments.side == "plain loop" else ours(setup)
    print(json.dumps({"version": "", "prompt": len(setup.prompter.cot_prompt(question(0)))}), flush=True)
    for number, _ in enumerate(sys.stdin):
        asked = [question(number * work.questions + i) for i in range(work.questions)]
        clock, processor = time.perf_counter(), time.process_time()
        with profiled(arguments.profile and number == 1):
            phases = step(asked, number + 1)
        seconds = {"seconds": time.perf_counter() - clock, "cpu": time.process_time() - processor}
        print(json.dumps({**seconds, "phases": phases, "peak": peak_memory()}), flush=True)


@contextlib.contextmanager
def profiled(on: bool) -> Any:
    """Time by operation, on standard error."""
    if not on:
        yield
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        yield
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=44), file=sys.stderr)


def ours(setup: Setup) -> Callable[[list[Example], int], dict[str, float]]:
    made = learner(setup, lambda parameters: torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0), "shared")
    return lambda asked, number: take_step(made, asked, number).seconds


def plain(setup: Setup, model: str) -> Callable[[list[Example], int], dict[str, float]]:
    setup.lm = None  # type: ignore[assignment]  # it loads two copies of its own
    gc.collect()
    reference = Reference(setup.config, model, setup.prompter)
    return lambda asked, _: reference.step(asked)


def peak_memory() -> int:
    """Bytes, of this process so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


# ------------------------------------------------------------------------------------------------------------- all sides


class Process(Turns):
    """A side, with the rows of its steps."""

    def __init__(self, name: str, command: Sequence[str], folder: Path):
        super().__init__(name, command, folder)
        self.rows = list[dict[str, Any]]()

    def step(self) -> dict[str, Any]:
        row = super().step()
        self.rows.append(row)
        print(
            f"{self.name}, step {len(self.rows)}: {row['cpu']:.1f} processor seconds, {row['seconds']:.1f} of the clock",
            file=sys.stderr,
        )
        return row


def measure(work: Work, model: str, arguments: argparse.Namespace, folder: Path) -> str:
    """Turn by turn, the first to go changing; the first step of each warms up."""
    sides = [Process(name, command(name, work, model, arguments, folder), folder) for name in arguments.sides]
    try:
        for number in range(arguments.repeats + 1):
            for side in sides if number % 2 else sides[::-1]:
                side.step()
    finally:
        logs = {side.name: side.end() for side in sides}
    if arguments.profile:
        print(logs["markovlm"], file=sys.stderr)
    return table(work, model, sides, arguments)


def command(name: str, work: Work, model: str, arguments: argparse.Namespace, folder: Path) -> list[str]:
    shape = f"{work.questions}x{work.group}x{work.cot}"
    own = [sys.executable, str(Path(__file__).resolve()), "--side", name, "--model", model, "--shapes", shape]
    own += ["--prompt", str(arguments.prompt), "--dtype", arguments.dtype, *(["--profile"] if arguments.profile else [])]
    if name != "TRL":
        return own
    setup = prepare(configuration(model, work, "float32"))
    question = questions_of(setup, arguments.prompt)
    prompts = [setup.prompter.cot_prompt(question(number)) for number in range((arguments.repeats + 1) * work.questions)]
    lora = setup.config.lora
    job = folder / f"trl-{shape}.json"
    job.write_text(
        json.dumps(
            {
                "model": str(resolve(model)),
                "prompts": [setup.lm.tokenizer.decode(prompt) for prompt in prompts],
                "questions": work.questions,
                "group": work.group,
                "tokens": work.cot,
                "ended": False,
                "steps": arguments.repeats + 1,
                "lora": {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": lora.targets},
            }
        )
    )
    return [str(arguments.trl_python), str(Path(__file__).resolve().with_name("against_trl_side.py")), str(job)]


def table(work: Work, model: str, sides: Sequence[Process], arguments: argparse.Namespace) -> str:
    rows = []
    own = next((side for side in sides if side.name == "markovlm"), sides[0])
    for side in sides:
        cpu, clock = ([row[key] for row in side.rows[1:]] for key in ("cpu", "seconds"))
        ratio = "" if side is own else "{:.2f} [{:.2f}, {:.2f}]".format(*ratio_interval([r["cpu"] for r in own.rows[1:]], cpu))
        peak = max(row["peak"] for row in side.rows)
        rows.append(
            f"| {side.name} | {statistics.median(cpu):.1f} | {statistics.median(clock):.1f} | {ratio} | {peak / 1e9:.2f} |"
        )
    shape = read_shape(configuration(model, work, arguments.dtype))
    parts = floor(shape, work, own.first["prompt"])
    speed = product_speed()
    said = ", ".join(f"{name} {amount / 1e9:.0f}" for name, amount in parts.items())
    phases = {
        key: statistics.median(row["phases"].get(key, 0.0) for row in own.rows[1:]) for key in own.rows[-1].get("phases", {})
    }
    return "\n".join(
        [
            f"{work} tokens, prompts of {own.first['prompt']}, {model}, {arguments.dtype}, {torch.get_num_threads()} thread(s), "
            f"n = {arguments.repeats} steps each",
            "",
            "| side | processor seconds per step, median | clock seconds | that side / markovlm, processor | peak GB |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"markovlm by phase, clock seconds, medians: {', '.join(f'{k} {v:.1f}' for k, v in phases.items())}",
            f"Floor of markovlm's work, billions of operations: {said}; in all {sum(parts.values()) / 1e9:.0f}, of them the vocabulary "
            f"{vocabulary_share(shape, work) * 100 / sum(parts.values()):.0f} %. One large product here: {speed / 1e9:.0f} billion a second, so "
            f"{sum(parts.values()) / speed:.1f} s.",
        ]
    )


def floor(shape: Shape, work: Work, prompt: int, answer: int = 3, header: int = 2) -> dict[str, float]:
    """Operations of one step by part: 2 a weight and token; back through frozen weights as much as forward. The reader's prompt counts as the
    CoT's without its question (two thirds)."""
    body, head = 2.0 * shape.linear, 2.0 * shape.vocabulary * shape.hidden
    cots, tokens = work.questions * work.group, work.questions * work.group * work.cot
    prompts, reader = work.questions * prompt, 2 * prompt // 3 + cots * (work.cot + header + answer)
    scored = cots * answer * head
    return {
        "sampling": tokens * (body + head) + prompts * body,
        "answers, forward and back": 2 * (reader * body + scored),
        "CoTs, forward and back": 2 * ((prompts + tokens) * body + tokens * head),
        "frozen policy": (prompts + tokens) * body + tokens * head,
    }


def vocabulary_share(shape: Shape, work: Work) -> float:
    """Operations of the projections alone: sampled, scored by both policies, and back; values and gradients of logp and KL apart."""
    return 4 * work.questions * work.group * work.cot * 2.0 * shape.vocabulary * shape.hidden


def product_speed() -> float:
    """Operations a second of a product of 256 x 576 x 1536, the best of many."""
    x, w = torch.randn(256, 576), torch.randn(1536, 576)
    best = float("inf")
    for _ in range(50):
        began = time.process_time()
        torch.nn.functional.linear(x, w)
        best = min(best, time.process_time() - began)
    return 2 * 256 * 576 * 1536 / best


# ------------------------------------------------------------------------------------------------------------ evaluation


def evaluation(model: str, arguments: argparse.Namespace) -> str:
    """Processor seconds of both loops on the same questions, turn by turn."""
    from eval import ours as our_evaluation
    from eval import plain_loop

    setup = prepare(configuration(model, Work.parse(arguments.shapes.split(",")[0]), arguments.dtype), trainable=True)
    config = setup.config.model_copy(update={"rollouts": setup.config.rollouts.model_copy(update={"fixed_length": False})})
    setup.config = config
    examples = list(setup.load("test", arguments.evaluate).examples)
    loops = {
        "plain loop": lambda: plain_loop(setup, examples, arguments.evaluate, config.rollouts.max_cot_tokens or 50),
        "markovlm": lambda: our_evaluation(setup, examples, arguments.evaluate),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(arguments.repeats):
        for name, loop in loops.items():
            torch.manual_seed(repeat)
            began = time.process_time()
            loop()
            seconds[name].append(time.process_time() - began)
    median, low, high = ratio_interval(seconds["markovlm"], seconds["plain loop"])
    return (
        f"evaluation of {len(examples)} questions, CoTs of at most {config.rollouts.max_cot_tokens}, {model}: markovlm "
        f"{statistics.median(seconds['markovlm']):.1f} processor seconds, plain loop {statistics.median(seconds['plain loop']):.1f}; "
        f"ratio {median:.2f} [{low:.2f}, {high:.2f}], n = {arguments.repeats}"
    )


def random_weights(folder: Path, vocabulary: int, layers: int) -> str:
    """A Llama of smollm2's sizes with another vocabulary, random weights, and the tokenizer of an embedded model."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded-words"))
    torch.manual_seed(0)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes = {**LAYERS, "num_hidden_layers": layers, "vocab_size": vocabulary, "max_position_embeddings": 2048}
    model = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="a known model or a directory")
    parser.add_argument("--vocabulary", type=int, help="random weights of smollm2's shape with so many tokens instead")
    parser.add_argument("--layers", type=int, default=30, help="of random weights")
    parser.add_argument("--shapes", default="1x16x50,2x16x100", help="questions x CoTs x tokens, several by commas")
    parser.add_argument("--prompt", type=int, default=100, help="tokens")
    parser.add_argument("--sides", default=",".join(SIDES), help="which, by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of markovlm and the plain loop")
    parser.add_argument("--profile", action="store_true", help="markovlm's second step by operation, on standard error")
    parser.add_argument("--evaluate", type=int, metavar="N", help="an evaluation of N questions instead of steps")
    parser.add_argument(
        "--trl-python", type=Path, default=ROOT / ".venv-trl" / "bin" / "python", help="of an environment with TRL"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.sides = [name.strip() for name in arguments.sides.split(",")]
    if unknown := set(arguments.sides) - set(SIDES):
        parser.error(f"--sides: {', '.join(sorted(unknown))}; known are {', '.join(SIDES)}")
    if arguments.side is None and "TRL" in arguments.sides and not arguments.evaluate and not arguments.trl_python.exists():
        parser.error(
            f"--trl-python {arguments.trl_python}: not there; make .venv-trl/.installed makes one, or leave TRL out of --sides"
        )
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    if arguments.side is not None:
        return serve(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model
        if arguments.vocabulary:
            model = random_weights(folder / "model", arguments.vocabulary, arguments.layers)
        if arguments.evaluate:
            print(evaluation(model, arguments))
            return None
        for shape in arguments.shapes.split(","):
            print(measure(Work.parse(shape), model, arguments, folder), end="\n\n", flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main())
