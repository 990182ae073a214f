"""The whole table of a GPU in one command, and a profile of a step by kernel: for a card that is lent for minutes.

    python benchmarks/gpu.py --out DIR                                                # the shape of Llama-3.1-8B, random weights
    python benchmarks/gpu.py --out DIR --device cpu --dtype float32 --size 1m --seconds 60       # a rehearsal, without a GPU

The parts, in the order of what is wanted most: what the card reaches (a copy, a matrix product); whether losses and gradients are those of
the plain loop; a token while decoding, with and without a CUDA graph; a step of one question and of many; an evaluation; memory against
vocabulary, CoT length and group; a step by kernel. A part is written to DIR as soon as it is done (`results.json`, `table.md`); one that
fails is written with its error and the next begins; one for which no time is left (`--seconds`) is named. torch, transformers, peft,
pydantic, PyYAML, click, rich and math-verify (of the evaluation) are enough: nothing is fetched, markovlm may stand in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from step import PHASES, SIZES, Reference, agree, learner, questions_of, random_llama, run_config
from training_runs import markdown

from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.models.memory import is_out_of_memory, release_memory
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.runs.setup import Setup, prepare
from markovlm.training.estimate import estimate
from markovlm.training.plan import workload_of
from markovlm.training.records import Learner
from markovlm.training.shapes import read_shape
from markovlm.training.step import take_step

Row = dict[str, Any]
VOCABULARY = {"8b": 128256, "1b": 128256}  # of the other sizes: the tokenizer's
AIMS = {"one question": "at most 0.8 s", "many": "at least 40 CoTs a second", "evaluation": "at least 20 questions a second"}
AIMS_ARE_OF = "the H200, with the shape of Llama-3.1-8B"


@dataclass
class Lease:
    """The time there is."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def repeats(self, most: int) -> Iterator[int]:
        """1, 2, ... as long as another of about the same length fits twice, so that the parts behind get their turn."""
        longest = 0.0
        for number in range(1, most + 1):
            if number > 1 and self.left < 2 * longest:
                return
            began = time.monotonic()
            yield number
            longest = max(longest, time.monotonic() - began)


@dataclass
class Bench:
    """A model of random weights, loaded once, and what is measured with it."""

    arguments: argparse.Namespace
    lease: Lease
    scratch: Path

    @property
    def device(self) -> torch.device:
        return torch.device(self.arguments.device)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @functools.cached_property
    def setup(self) -> Setup:
        """The shape, with a fresh adapter."""
        return self.made(self.arguments.size, VOCABULARY.get(self.arguments.size), self.arguments.dtype)

    def made(self, size: str, vocabulary: int | None, dtype: str) -> Setup:
        folder = self.scratch / f"{size}-{vocabulary}"
        if not folder.exists():
            random_llama(beside := folder.with_suffix(".tmp"), size, vocabulary, self.arguments.device)
            beside.rename(folder)
        return prepare(run_config(self.settings(dtype=dtype), str(folder)), trainable=True)

    def settings(self, **changed: Any) -> argparse.Namespace:
        """As `step.run_config` reads them: one question, and micro-batches of about a group."""
        few = self.arguments
        tokens = few.group * (2 * few.cot_tokens + 16)
        usual = {
            "seed": 0, "prompt": "plain", "device": few.device, "dtype": few.dtype, "questions": 1, "group": few.group,
            "cot_tokens": few.cot_tokens, "microbatch_tokens": tokens,
        }  # fmt: skip
        return argparse.Namespace(**{**usual, **changed})

    def learner(self, setup: Setup, **changed: Any) -> Learner:
        wanted = run_config(self.settings(**changed), setup.config.model)
        sizes = {key: getattr(wanted.rollouts, key) for key in ("questions_per_step", "group_size", "max_cot_tokens")}
        changes = {
            "objective": setup.config.objective.model_copy(update={"baseline_every": 5}),  # as it is by default
            "rollouts": setup.config.rollouts.model_copy(update=sizes),
            "training": wanted.training,
        }
        resolved = setup.config.model_copy(update=changes)
        return learner(dataclasses.replace(setup, config=resolved), _still, "shared")

    def timed(self, work: Callable[[], Any]) -> tuple[float, int | None]:
        """Seconds, and the most memory that was allocated (None on a CPU)."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began, torch.cuda.max_memory_allocated(self.device) if self.on_gpu else None

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def _still(parameters: Any) -> torch.optim.Optimizer:
    """Takes the time of a step and changes nothing."""
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0)


# ------------------------------------------------------------------------------------------------------- the parts


def card(bench: Bench) -> list[Row]:
    """What it reaches: the floors of everything below."""
    elements = 1 << 30 if bench.on_gpu else 1 << 24
    source = torch.randint(-100, 100, (elements,), dtype=torch.int8, device=bench.device)
    target = torch.empty_like(source)
    copying = [bench.timed(lambda: target.copy_(source))[0] for _ in range(12)][2:]
    side = 8192 if bench.on_gpu else 512
    one, other = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    product = [bench.timed(lambda: one @ other)[0] for _ in range(12)][2:]
    named = torch.cuda.get_device_name(bench.device) if bench.on_gpu else "CPU"
    return [
        {
            "card": named,
            "torch": torch.__version__,
            "copy, TB/s read and written": round(2 * elements / statistics.median(copying) / 1e12, 3),
            f"bfloat16 product of {side}, TFLOP/s": round(2 * side**3 / statistics.median(product) / 1e12, 2),
        }
    ]


def agreement(bench: Bench) -> list[Row]:
    """Loss and gradient on the same CoTs as the plain loop's (SystemExit where they differ by more than the type allows)."""
    found = []
    for dtype in ("float32", "bfloat16"):
        setup = bench.made("1m", None, dtype)
        for sharing in ("shared", "padded"):
            reference = Reference(setup.config, setup.config.model, setup.prompter)
            same = agree(setup, reference, questions_of(setup, 1)(1000), dtype, sharing)
            found.append({"type": dtype, "prompts": sharing, "loss": same.relative, "gradient": same.gradient})
    return found


def decoding(bench: Bench) -> list[Row]:
    """A token of a group, and what the first call takes longer, in which the step is recorded."""
    lm, prompt = bench.setup.lm, bench.setup.prompter.cot_prompt(questions_of(bench.setup, 1)(0)[0])
    tokens, group = bench.arguments.cot_tokens, bench.arguments.group
    request = [SampleRequest(prompt, tuple(("gpu", number) for number in range(group)))]
    wanted = Decoding(tokens, temperature=1.0, fixed_length=True)
    found = []
    for cache in ("auto", "off") if bench.on_gpu else ("on", "off"):
        sampler = HFSampler(lm, static_cache=cache)
        first, _ = bench.timed(lambda sampler=sampler: sampler.sample(request, wanted))
        again = [bench.timed(lambda sampler=sampler: sampler.sample(request, wanted))[0] for _ in bench.lease.repeats(3)]
        usual = statistics.median(again)
        one_shape = sampler.decoder is not None
        found.append(
            {
                "rollouts.static_cache": cache,
                "in one shape": one_shape,
                "rows": group,
                "ms a token": round(1e3 * usual / tokens, 3),
                "first call longer by, s": round(first - usual, 2),
                "n": len(again),
            }
        )
        sampler.release()
    return found


def steps(bench: Bench, name: str, questions: int, most: int) -> list[Row]:
    made = bench.learner(bench.setup, questions=questions)
    asked = questions_of(bench.setup, questions)
    _warm(made, asked, bench)
    runs: list[dict[str, float]] = []
    memory: list[int | None] = []
    retries = 0
    for number in bench.lease.repeats(most):
        done: list[Any] = []
        seconds, peak = bench.timed(lambda n=number, done=done: done.append(take_step(made, asked(n), n + 1)))
        runs.append({**done[0].seconds, "step": seconds})
        retries += done[0].splits
        memory.append(peak)
    _release(made)
    median = {phase: statistics.median(run.get(phase, 0.0) for run in runs) for phase in (*PHASES, "step")}
    cots = questions * bench.arguments.group
    row: Row = {
        "work": f"{questions} x {bench.arguments.group} x {bench.arguments.cot_tokens}",
        "s a step": round(median["step"], 3),
        "from": round(min(run["step"] for run in runs), 3),
        "to": round(max(run["step"] for run in runs), 3),
        "CoTs a second": round(cots / median["step"], 1),
        "aim": AIMS[name],
        **{phase: round(median[phase], 3) for phase in PHASES},
        "out of memory": retries,
        "n": len(runs),
    }
    return [row | _memory(made, asked(1), max((peak for peak in memory if peak), default=None))]


def _memory(made: Learner, questions: Sequence[Any], peak: int | None) -> Row:
    """Allocated at most, and the estimate of it."""
    if peak is None:
        return {}
    work = workload_of(made.prompter, made.config, questions)
    estimated = estimate(made.config, read_shape(made.config), work).peak
    gigabytes = {"peak, GB": round(peak / 1e9, 2), "estimated, GB": round(estimated / 1e9, 2)}
    return {**gigabytes, "estimated / peak": round(estimated / peak, 3)}


def _warm(made: Learner, asked: Callable[[int], list[Any]], bench: Bench) -> None:
    take_step(made, asked(0), 1)
    bench.wait()


def _release(made: Learner) -> None:
    if isinstance(made.sampler, HFSampler):
        made.sampler.release()
    release_memory()


def one_question(bench: Bench) -> list[Row]:
    return steps(bench, "one question", 1, 7)


def many(bench: Bench) -> list[Row]:
    return steps(bench, "many", bench.arguments.questions, 3)


def evaluation(bench: Bench) -> list[Row]:
    """CoTs of a fixed length, since random weights end nowhere: each is as long as it may be, and the answer too."""
    setup, few = bench.setup, bench.arguments
    how = how_evaluated(setup.config, setup.prompter, step=1)
    examples = list(setup.load("test", few.evaluated).examples)
    seconds = []
    for _ in bench.lease.repeats(3):
        sampler = setup.sampler()
        took, _ = bench.timed(
            lambda sampler=sampler: evaluate(setup.lm, sampler, setup.prompter, examples, how, batch_size=few.evaluated)
        )
        seconds.append(took)
    usual = statistics.median(seconds)
    rate = {"questions a second": round(len(examples) / usual, 1), "aim": AIMS["evaluation"]}
    return [{"questions": len(examples), "CoT tokens": few.cot_tokens, **rate, "n": len(seconds)}]


def memory(bench: Bench) -> list[Row]:
    """Of a step, above what the model itself takes: flat in the vocabulary, linear in tokens and in the group."""
    if not bench.on_gpu:
        return []  # benchmarks/memory.py is for CPUs
    found = []
    for vocabulary in (32_000, 128_256):
        setup = bench.made("120m", vocabulary, bench.arguments.dtype)
        weights = torch.cuda.memory_allocated(bench.device)
        varied = [(8, 50), (16, 50), (32, 50), (16, 100), (16, 200)] if vocabulary == 32_000 else [(16, 100)]
        for group, cot in varied:
            made = bench.learner(setup, group=group, cot_tokens=cot, microbatch_tokens=1 << 22)
            asked = questions_of(setup, 1)
            _warm(made, asked, bench)
            _, peak = bench.timed(lambda made=made, asked=asked: take_step(made, asked(1), 2))
            row = {
                "vocabulary": vocabulary,
                "CoTs": group,
                "tokens": cot,
                "above the model, MB": round(((peak or 0) - weights) / 1e6, 1),
            }
            found.append(row | _memory(made, asked(1), peak))
            _release(made)
        del setup
        release_memory()
    return found


def kernels(bench: Bench) -> list[Row]:
    """A step of one question, by what the device (a CPU: the operations) spent its time on."""
    from torch.profiler import ProfilerActivity, profile

    made = bench.learner(bench.setup)
    asked = questions_of(bench.setup, 1)
    _warm(made, asked, bench)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.on_gpu else [])]
    with profile(activities=activities) as recorded:
        took, _ = bench.timed(lambda: take_step(made, asked(1), 2))
    _release(made)
    events = [event for event in recorded.key_averages() if (event.device_type.name == "CUDA") == bench.on_gpu]
    spent = {id(event): event.self_device_time_total if bench.on_gpu else event.self_cpu_time_total for event in events}
    whole = sum(spent.values()) / 1e6
    share = f"{whole:.3f} of {took:.3f} s with the profiler on"
    rows: list[Row] = [{"kernel": "all", "calls": sum(e.count for e in events), "ms": round(whole * 1e3, 2), "share": share}]
    for event in sorted(events, key=lambda event: -spent[id(event)])[:30]:
        ms = spent[id(event)] / 1e3
        rows.append({"kernel": event.key[:90], "calls": event.count, "ms": round(ms, 2), "share": round(ms / 1e3 / whole, 3)})
    return rows


PARTS: tuple[
    tuple[str, float, Callable[[Bench], list[Row]]], ...
] = (  # name, seconds it takes at least with 8 billion parameters
    ("card", 5, card),
    ("agreement", 15, agreement),
    ("decoding", 60, decoding),
    ("one question", 20, one_question),
    ("many", 40, many),
    ("evaluation", 20, evaluation),
    ("memory", 30, memory),
    ("kernels", 20, kernels),
)


# ------------------------------------------------------------------------------------------------------- all of them


def run(bench: Bench, out: Path) -> dict[str, Any]:
    """What each part found, or why it found nothing."""
    chosen = bench.arguments.parts.split(",") if bench.arguments.parts else [name for name, _, _ in PARTS]
    results: dict[str, Any] = {}
    for name, least, part in PARTS:
        if name not in chosen:
            continue
        began = time.monotonic()
        if bench.lease.left < (least if bench.on_gpu else 0):
            results[name] = {"skipped": f"{max(bench.lease.left, 0):.0f} s are left, it takes {least:.0f} at least"}
        else:
            try:
                results[name] = {"rows": part(bench)}
            except (Exception, SystemExit) as error:  # the machine is lent now: what else can be measured is
                memory = " (out of memory)" if isinstance(error, RuntimeError) and is_out_of_memory(error) else ""
                results[name] = {"error": f"{type(error).__name__}{memory}: {error}", "trace": traceback.format_exc()}
            release_memory()
        results[name]["seconds"] = round(time.monotonic() - began, 1)
        (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (out / "table.md").write_text(tables(results, bench.arguments))
        print(section(name, results[name]), flush=True)
    return results


def tables(results: dict[str, Any], arguments: argparse.Namespace) -> str:
    head = f"Random Llama {arguments.size}, {arguments.dtype} on {arguments.device}, by `benchmarks/gpu.py`. Aims are of {AIMS_ARE_OF}.\n"
    return "\n".join([head, *(section(name, found) for name, found in results.items())])


def section(name: str, found: dict[str, Any]) -> str:
    said = found.get("error") or found.get("skipped")
    rows: list[Row] = found.get("rows", [])
    columns = list(dict.fromkeys(column for row in rows for column in row))
    body = (
        markdown(columns, [[str(row.get(column, "")) for column in columns] for row in rows])
        if rows
        else said or "nothing to say here"
    )
    return f"## {name} ({found['seconds']} s)\n\n{body}\n"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory for results.json and table.md")
    parser.add_argument("--seconds", type=float, default=540, help="that there are; parts that don't fit are left out [540]")
    parser.add_argument("--parts", help=f"some of {','.join(name for name, _, _ in PARTS)}")
    parser.add_argument("--size", default="8b", choices=SIZES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--group", type=int, default=12, help="CoTs a question [12]")
    parser.add_argument("--questions", type=int, default=32, help="of the step with many [32]")
    parser.add_argument("--cot-tokens", type=int, default=100, help="[100]")
    parser.add_argument("--evaluated", type=int, default=256, help="questions, all side by side [256]")
    arguments = parser.parse_args(argv)
    known = [name for name, _, _ in PARTS]
    if unknown := set(arguments.parts.split(",") if arguments.parts else []) - set(known):
        parser.error(f"--parts: unknown {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here; --device cpu --dtype float32 --size 1m is a rehearsal")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lease = Lease(arguments.seconds)
    with tempfile.TemporaryDirectory(dir=_roomy()) as scratch:
        results = run(Bench(arguments, lease, Path(scratch)), arguments.out)
    return int(any("error" in found for found in results.values()))


def _roomy() -> str | None:
    """Memory, where there is enough of it: 16 GB of weights are written and read once."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > 40e9 else None


if __name__ == "__main__":
    sys.exit(main())
