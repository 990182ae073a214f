"""One optimisation step of markovlm against a plain reference loop, on the same CoTs.

    python benchmarks/step.py                                   # the embedded model, CPU, about two minutes
    python benchmarks/step.py --model random-llama --size 25m
    python benchmarks/step.py --shape llama-3.1-8b --device cuda --dtype bfloat16

The reference is what one writes on a first day, with a sensible batch size: two copies of the model (one with LoRA), `generate`
of transformers for the group and for the frozen model's greedy baseline, whole padded rows of prompt + CoT and of prompt +
CoT + answer through the model, full logits, exact KL from two log-softmaxes over them. It is not slowed down on purpose: one
batch where it fits, no logging.

Both sides compute the loss of METHOD §2 (grpo, live actor reward, exact KL, baseline in every step). Before anything is timed,
both score the same CoTs, and the losses and gradients must agree. Then the two alternate, each sampling its own CoTs of a fixed
length (end tokens masked), so that every step does the same work; medians over the repeats.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovlm.config import RunConfig, build_config, nest
from markovlm.models.folding import unfold_layers
from markovlm.models.load import load_model
from markovlm.objectives import build_objective
from markovlm.rewards import build_reward
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.prompter import Prompter
from markovlm.rollouts.types import CoT, SampleRequest
from markovlm.runs.setup import Setup, prepare
from markovlm.tasks.base import Example
from markovlm.training.distributed import World
from markovlm.training.readers import reading_room
from markovlm.training.records import Learner, StepResult
from markovlm.training.sampling import cot_decoding
from markovlm.training.step import take_step

PHASES = ("sampling", "baseline", "scoring", "training", "optimizer")
SIZES: dict[str, dict[str, Any]] = {  # hidden, intermediate, layers, heads, key-value heads
    "1m": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4},
    "25m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2},
    "120m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {  # --shape NAME sets what the command line does not
    "llama-3.1-8b": {
        "model": "random-llama",
        "size": "8b",
        "vocabulary": 128256,
        "prompt": "plain",
        "questions": 1,
        "group": 16,
        "cot_tokens": 100,
    },
}
TOLERANCE = {"float64": 1e-9, "float32": 2e-5, "bfloat16": 3e-2, "float16": 1e-2}  # relative, of the loss
GRADIENT_TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 0.2, "float16": 0.1}  # relative, of the whole gradient


# ------------------------------------------------------------------------------------------------------- the model


def random_llama(directory: Path, size: str, vocabulary: int | None, device: str = "cpu") -> Path:
    """A Llama of random weights, drawn on `device`, with the embedded model's tokenizer, its vocabulary padded to the wanted size."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from markovlm.models.registry import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=max(vocabulary or 0, len(tokenizer)), max_position_embeddings=2048, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **SIZES[size],
    )  # fmt: skip
    with _default_dtype(torch.bfloat16 if size in ("1b", "8b") else torch.float32), torch.device(device):
        model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run_config(arguments: argparse.Namespace, model: str) -> RunConfig:
    return build_config(
        nest(
            {
                "model": model,
                "task": "arithmetic",
                "seed": arguments.seed,
                "prompt.style": arguments.prompt,
                "loading.device": arguments.device,
                "loading.dtype": arguments.dtype,
                "objective.baseline_every": 1,
                "rollouts.questions_per_step": arguments.questions,
                "rollouts.group_size": arguments.group,
                "rollouts.max_cot_tokens": arguments.cot_tokens,
                "rollouts.fixed_length": True,
                "rollouts.batch_tokens": 1 << 22,
                "training.microbatch_tokens": arguments.microbatch_tokens,
                "training.steps": 10_000,
                "training.lr": 1e-4,
                "training.eval_every": 0,
            }
        )
    )


# ------------------------------------------------------------------------------------------------------- the reference


@dataclass
class Clock:
    """Seconds by phase."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    last: float = 0.0

    def start(self) -> None:
        self._wait()
        self.seconds, self.last = {}, time.perf_counter()

    def mark(self, phase: str) -> None:
        self._wait()
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Reference:
    """The plain loop: two copies, padded rows, full logits."""

    def __init__(self, config: RunConfig, model: str, prompter: Prompter):
        self.config, self.prompter = config, prompter
        self.actor = load_model(model, config.loading, lora=config.lora, seed=1)
        unfold_layers(self.actor.model)  # as PEFT computes
        self.frozen = load_model(model, config.loading)
        self.device = self.actor.device
        self.parameters = [p for _, p in self.actor.adapter_parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.0)
        self.clock = Clock(self.device)
        self.pad = self.actor.pad_id
        self.answers: dict[str, tuple[int, ...]] = {}

    def copy_adapter(self, others: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for mine, theirs in zip(self.parameters, others, strict=True):
                mine.copy_(theirs)

    # ---- sampling

    @torch.no_grad()
    def generate(self, model: Any, prompts: Sequence[tuple[int, ...]], sample: bool) -> Tensor:
        """[N, T] tokens after left-padded prompts, by transformers' `generate`; end tokens are masked until the last."""
        length = self.config.rollouts.max_cot_tokens
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        out = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=sample, temperature=1.0 if sample else None, top_k=0 if sample else None,
            top_p=1.0 if sample else None, max_new_tokens=length, min_new_tokens=length, pad_token_id=self.pad,
        )  # fmt: skip
        return out[:, width:]

    # ---- scoring

    def logits(self, model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
        """[N, L, V] of right-padded rows, in float32 or better."""
        width = max(map(len, rows))
        ids = torch.tensor([list(r) + [self.pad] * (width - len(r)) for r in rows], device=self.device)
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=self.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def answer_logp(self, model: Any, examples: Sequence[Example], cots: Sequence[Sequence[int]]) -> Tensor:
        """[N] ln pi(a|z), mean over answer tokens."""
        rows, spans = [], []
        for example, cot in zip(examples, cots, strict=True):
            before = [*self.prompter.reader_prompt(example, "markovian"), *cot, *self.prompter.header_ids]
            answer = self.prompter.answer_ids(example)
            rows.append([*before, *answer])
            spans.append((len(before), len(answer)))
        log_p = self.logits(model, rows).log_softmax(-1)
        out = []
        for n, (start, length) in enumerate(spans):
            targets = torch.tensor(rows[n][start : start + length], device=self.device)
            out.append(log_p[n, start - 1 : start - 1 + length].gather(-1, targets[:, None]).mean())
        return torch.stack(out)

    def cot_log_p(self, model: Any, prompts: Sequence[tuple[int, ...]], cots: Sequence[Sequence[int]]) -> Tensor:
        """[N, T, V] log-probs of the sampled distribution at the CoT's positions."""
        rows = [[*p, *z] for p, z in zip(prompts, cots, strict=True)]
        logits = self.logits(model, rows)
        length = len(cots[0])
        picked = torch.stack([logits[n, len(p) - 1 : len(p) - 1 + length] for n, p in enumerate(prompts)])
        banned = torch.tensor(self.actor.terminators, device=self.device)
        return picked.index_fill(-1, banned, float("-inf")).log_softmax(-1)

    # ---- a step

    def loss(self, examples: Sequence[Example], cots: Sequence[Sequence[int]], baseline: Tensor | None, live: Tensor) -> Tensor:
        """Mean over N samples of L_PG + L_AR + L_KL; `live` [N] are the rewards with gradient."""
        group = self.config.rollouts.group_size
        objective = self.config.objective
        prompts = [self.prompter.cot_prompt(example) for example in examples]
        log_p = self.cot_log_p(self.actor.causal_lm, prompts, cots)
        with torch.no_grad():
            log_q = self.cot_log_p(self.frozen.causal_lm, prompts, cots)
        tokens = torch.tensor([list(z) for z in cots], device=self.device)
        logp = log_p.gather(-1, tokens[..., None])[..., 0].sum(-1)
        kl = (log_p.exp() * (log_p - log_q).masked_fill(log_p == float("-inf"), 0.0)).sum(-1).mean(-1)
        reward = live if baseline is None else live - baseline
        grouped = reward.detach().view(-1, group)
        centre = grouped.mean(1, keepdim=True).expand_as(grouped).reshape(-1)
        scale = grouped.std(1, keepdim=True).clamp(min=objective.std_floor).expand_as(grouped).reshape(-1)  # type: ignore[union-attr]
        advantage = (reward - centre) / scale
        weight, beta = objective.actor_reward_weight.start, objective.kl_weight.start
        return (-logp * advantage.detach() - weight * advantage + beta * kl).mean()

    def gradients(self, examples: Sequence[Example], cots: Sequence[Sequence[int]]) -> tuple[float, Tensor]:
        """Loss and flat gradient on given CoTs."""
        loss = self.loss(examples, cots, None, self.answer_logp(self.actor.causal_lm, examples, cots))
        grads = torch.autograd.grad(loss, self.parameters)
        return loss.item(), torch.cat([g.reshape(-1) for g in grads])

    def step(self, questions: Sequence[Example]) -> dict[str, float]:
        """Seconds by phase."""
        group = self.config.rollouts.group_size
        self.clock.start()
        examples = [question for question in questions for _ in range(group)]
        drawn = self.generate(self.actor.causal_lm, [self.prompter.cot_prompt(e) for e in examples], True).tolist()
        self.clock.mark("sampling")
        with torch.no_grad():
            greedy = self.generate(self.frozen.causal_lm, [self.prompter.cot_prompt(q) for q in questions], False).tolist()
            baseline = self.answer_logp(self.frozen.causal_lm, questions, greedy).repeat_interleave(group)
        self.clock.mark("baseline")
        live = self.answer_logp(self.actor.causal_lm, examples, drawn)
        self.clock.mark("scoring")
        self.loss(examples, drawn, baseline, live).backward()
        self.clock.mark("training")
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.clock.mark("optimizer")
        return dict(self.clock.seconds)


# ------------------------------------------------------------------------------------------------------- ours


class Fixed:
    """A sampler that gives the CoTs it is told, for comparing losses."""

    def __init__(self, groups: list[list[CoT]]):
        self.groups = groups
        self.splits = 0

    def sample(self, requests: Sequence[SampleRequest], decoding: Any) -> list[list[CoT]]:
        return self.groups


class Recorder(torch.optim.SGD):
    """Keeps the gradients instead of using them."""

    def step(self, closure: Any = None) -> Any:
        self.flat = torch.cat([p.grad.reshape(-1).clone() for group in self.param_groups for p in group["params"]])


def learner(setup: Setup, optimizer: Any, sharing: str) -> Learner:
    parameters = [p for _, p in setup.lm.adapter_parameters()]
    sampler = HFSampler(setup.lm, setup.config.rollouts.batch_tokens)
    objective = build_objective(setup.config.objective)
    return Learner(
        setup.config,
        setup.lm,
        setup.prompter,
        sampler,
        objective,
        build_reward(objective.config),
        reading_room(setup),
        optimizer(parameters),
        World(),
        sharing,
    )  # type: ignore[arg-type]


@dataclass(frozen=True)
class Agreement:
    """Of the two sides on the same CoTs."""

    ours: float
    reference: float
    relative: float  # to the mean of abs ln u(z): a sample's loss at an advantage of 1. The mean loss itself may be near 0
    gradient: float  # relative norm of the difference


def agree(setup: Setup, reference: Reference, questions: list[Example], dtype: str, sharing: str) -> Agreement:
    """Raises SystemExit where loss or gradient differ by more than the tolerance of the dtype."""
    shaken(setup)
    reference.copy_adapter([p for _, p in setup.lm.adapter_parameters()])
    made = learner(setup, lambda parameters: Recorder(parameters, lr=0.0), sharing)
    made.config = without_clipping(setup.config)
    requests = [
        SampleRequest(setup.prompter.cot_prompt(q), tuple(("agree", q.id, i) for i in range(setup.config.rollouts.group_size)))
        for q in questions
    ]
    groups = made.sampler.sample(requests, cot_decoding(setup.config, 1))
    made.sampler = Fixed(groups)
    result = take_step(made, questions, 1)
    ours = mean_loss(result)
    scale = statistics.fmean(abs(sum(cot.behavior_logp)) for group in groups for cot in group)
    examples = [q for q, group in zip(questions, groups, strict=True) for _ in group]
    theirs, gradient = reference.gradients(examples, [cot.tokens for group in groups for cot in group])
    assert isinstance(made.optimizer, Recorder)
    found = Agreement(
        ours, theirs, abs(ours - theirs) / scale,
        ((made.optimizer.flat - gradient).norm() / gradient.norm()).item(),
    )  # fmt: skip
    if found.relative > TOLERANCE[dtype] or found.gradient > GRADIENT_TOLERANCE[dtype]:
        raise SystemExit(f"the two sides do not compute the same: {found}")
    return found


def without_clipping(config: RunConfig) -> RunConfig:
    """No clipping, no baseline: group advantages cancel it, and the given CoTs stand for the actor's."""
    training = config.training.model_copy(update={"max_grad_norm": 1e9})
    objective = config.objective.model_copy(update={"normalize_reward": False})
    return config.model_copy(update={"training": training, "objective": objective})


@torch.no_grad()
def shaken(setup: Setup) -> None:
    """An adapter that does something: a fresh one is zero and would hide half of the differences."""
    generator = torch.Generator().manual_seed(3)
    for _, parameter in setup.lm.adapter_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.add_(0.02 * noise.to(parameter.device, parameter.dtype))


def mean_loss(result: StepResult) -> float:
    terms = ("loss_policy", "loss_actor_reward", "loss_kl", "loss_entropy")
    return statistics.fmean(sum(sample.stats[term] for term in terms) for sample in result.samples)


# ------------------------------------------------------------------------------------------------------- timing


@dataclass
class Side:
    """Measurements of one side: seconds by phase for every repeat, and its peak memory."""

    name: str
    step: Callable[[list[Example]], dict[str, float]]
    runs: list[dict[str, float]] = field(default_factory=list)
    memory: int | None = None

    def measure(self, questions: list[Example], device: torch.device) -> None:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.runs.append(self.step(questions))
        if device.type == "cuda":
            self.memory = max(self.memory or 0, torch.cuda.max_memory_allocated())

    def phase(self, name: str) -> float:
        return statistics.median(run.get(name, 0.0) for run in self.runs)

    def totals(self) -> list[float]:
        return [sum(run.values()) for run in self.runs]


def ratio_interval(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Median of the pairwise ratios reference/ours of neighbouring steps, and a 95 % bootstrap interval of that median."""
    ratios = np.array(theirs) / np.array(ours)
    rng = np.random.default_rng(seed)
    medians = np.median(ratios[rng.integers(0, len(ratios), (5000, len(ratios)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def alternate(sides: Sequence[Side], questions: Callable[[int], list[Example]], repeats: int, device: torch.device) -> None:
    """Warm-up of one step each, then turn by turn, the first to go changing."""
    for number in range(repeats + 1):
        order = sides if number % 2 else sides[::-1]
        for side in order:
            side.measure(questions(number), device)
    for side in sides:
        side.runs = side.runs[1:]


def questions_of(setup: Setup, per_step: int) -> Callable[[int], list[Example]]:
    examples = setup.load("train").examples
    return lambda number: [examples[number * per_step + i] for i in range(per_step)]


# ------------------------------------------------------------------------------------------------------- table


def table(sides: Sequence[Side], arguments: argparse.Namespace, agreement: Agreement) -> str:
    ours, reference = sides
    median, low, high = ratio_interval(ours.totals(), reference.totals())
    lines = [
        f"{arguments.questions} questions x {arguments.group} CoTs x {arguments.cot_tokens} tokens, {arguments.label}, "
        f"{arguments.dtype} on {arguments.device} ({torch.get_num_threads()} threads), n={arguments.repeats} steps each, medians",
        f"same CoTs: loss {agreement.ours:.6f} and {agreement.reference:.6f} (relative difference {agreement.relative:.1e}, "
        f"tolerance {TOLERANCE[arguments.dtype]:.0e}), gradient {agreement.gradient:.1e}",
        "",
        "| seconds | markovlm | reference | reference / markovlm |",
        "|---|---|---|---|",
    ]
    for phase in PHASES:
        mine, theirs = ours.phase(phase), reference.phase(phase)
        lines.append(f"| {phase} | {mine:.4f} | {theirs:.4f} | {theirs / mine:.2f} |")
    total = [statistics.median(side.totals()) for side in sides]
    lines.append(f"| whole step | {total[0]:.4f} | {total[1]:.4f} | {median:.2f} [{low:.2f}, {high:.2f}] |")
    if ours.memory and reference.memory:
        mine, theirs = ours.memory / 2**30, reference.memory / 2**30
        lines.append(f"| peak memory, GiB | {mine:.2f} | {theirs:.2f} | {theirs / mine:.2f} |")
    lines += ["", "In brackets: 95 % bootstrap interval of the median ratio of neighbouring steps."]
    if ours.memory is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        lines.append(
            f"Peak resident memory of the process, both sides in it: {peak:.0f} MiB (--only ours|reference for one alone)."
        )
    else:
        lines.append(
            "Peak memory includes the weights of the other side, which stay loaded; --only ours|reference measures one alone."
        )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=None, help="embedded (default), random-llama, a path or a Hub id")
    parser.add_argument("--size", default=None, choices=SIZES, help="of random-llama [25m]")
    parser.add_argument("--vocabulary", type=int, default=None, help="of random-llama, at least the tokenizer's")
    parser.add_argument("--shape", choices=SHAPES, help="a preset: random weights of this shape")
    parser.add_argument("--prompt", default=None, choices=["compact", "plain"], help="prompt style [compact]; plain is long")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=TOLERANCE)
    parser.add_argument("--questions", type=int, default=None, help="[4]")
    parser.add_argument("--group", type=int, default=None, help="[16]")
    parser.add_argument("--cot-tokens", type=int, default=None, help="[44]")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--microbatch-tokens", type=int, default=1 << 20, help="of our side; the default is one micro-batch")
    parser.add_argument("--sharing", default="shared", choices=["shared", "padded"], help="prompt sharing of our side")
    parser.add_argument("--only", choices=["ours", "reference"], help="time one side alone, for its peak memory")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args(argv)
    preset = SHAPES.get(arguments.shape or "", {})
    defaults = {"model": "embedded", "size": "25m", "prompt": "compact", "questions": 4, "group": 16, "cot_tokens": 44}
    for key, value in {**defaults, **preset}.items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    arguments.label = f"random llama {arguments.size}" if arguments.model == "random-llama" else arguments.model
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model
        if model == "random-llama":
            model = str(random_llama(Path(folder) / "model", arguments.size, arguments.vocabulary, arguments.device))
        setup = prepare(run_config(arguments, model), trainable=True)
        reference = Reference(setup.config, model, setup.prompter)
    torch.manual_seed(arguments.seed)
    questions = questions_of(setup, arguments.questions)
    agreement = agree(setup, reference, questions(1000), arguments.dtype, arguments.sharing)
    made = learner(setup, lambda parameters: torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0), arguments.sharing)
    counter = iter(range(1, 10_000))
    sides = [
        Side("markovlm", lambda asked: take_step(made, asked, next(counter)).seconds),
        Side("reference", reference.step),
    ]
    if arguments.only:
        alone(sides[arguments.only == "reference"], setup, reference, questions, arguments)
        return
    alternate(sides, questions, arguments.repeats, setup.lm.device)
    print(table(sides, arguments, agreement))
    if arguments.json:
        arguments.json.write_text(json.dumps(record(sides, arguments, agreement), indent=1) + "\n")


def alone(side: Side, setup: Setup, reference: Reference, questions: Any, arguments: argparse.Namespace) -> None:
    """One side with the other's weights gone: its time and its own peak memory."""
    device = setup.lm.device
    if side.name == "markovlm":
        reference.actor = reference.frozen = None  # type: ignore[assignment]
        reference.parameters, reference.optimizer = [], None  # type: ignore[assignment]
    else:
        setup.lm.model.to("cpu")
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    alternate([side], questions, arguments.repeats, device)
    memory = "" if side.memory is None else f", peak memory {side.memory / 2**30:.2f} GiB"
    quarters = statistics.quantiles(side.totals(), n=4)
    print(f"{side.name} alone: {quarters[1]:.4f} s a step [{quarters[0]:.4f}, {quarters[2]:.4f}], n={len(side.runs)}{memory}")


def record(sides: Sequence[Side], arguments: argparse.Namespace, agreement: Agreement) -> dict[str, Any]:
    ours, reference = sides
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    device = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else platform.processor()
    return {
        "settings": settings,
        "torch": torch.__version__,
        "device_name": device,
        "threads": torch.get_num_threads(),
        "agreement": vars(agreement),
        "ratio": ratio_interval(ours.totals(), reference.totals()),
        "runs": {side.name: side.runs for side in sides},
        "peak_memory": {side.name: side.memory for side in sides},
    }


if __name__ == "__main__":
    sys.exit(main())
