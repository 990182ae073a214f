"""What a run will do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.text import Text

from markovlm.terminal.console import stdout


def show_plan(plan: dict[str, Any]) -> None:
    """Print what `markovlm train --dry-run` found: `training.plan.plan`."""
    console = stdout()

    def say(label: str, text: str) -> None:
        console.print(Text(f"{label:12} {text}"), soft_wrap=True)

    sizes = ", ".join(f"{name} {'endless' if n is None else f'{n:,}'}" for name, n in plan["splits"].items())
    tokens, prompt = plan["tokens_per_step"], plan["prompt_tokens"]
    say("dry run", "nothing is trained or written")
    say("task", f"{plan['task']}; {plan['splits_note']}" + (f": {sizes}" if sizes else ""))
    say("model", f"{plan['model']}{_parameters(plan['memory'])}")
    reading = f"{plan['conditioning'].replace('_', '-')}, read by the {plan['reader']}"
    say("objective", f"{plan['objective']}, {reading}, actor-reward weight {plan['actor_reward_weight']}")
    epochs = "" if plan["epochs"] is None else f" ({plan['epochs']:.2g} epochs)"
    group = f"{plan['questions_per_step']} x {plan['group_size']} CoTs of at most {plan['max_cot_tokens']} tokens"
    say("steps", f"{plan['steps']:,}{epochs}, each {group}; health policy {plan['health_policy']}")
    evaluations = f"{plan['evaluations']} on {plan['evaluation_questions']} dev questions" if plan["evaluations"] else "none"
    if plan["chain"] is not None:
        states = "?" if plan["chain"]["states"] is None else f"{plan['chain']['states']:.3g}"
        say(
            "chain",
            f"{plan['chain']['kind']}, {states} states per text; tokens and memory below are those of one state of each chain",
        )
    say("evaluations", f"{evaluations}; checkpoints {plan['checkpoints']}")
    say("prompts", f"{prompt['mean']} tokens on average, the longest {prompt['longest']} ({prompt['source']})")
    scored = f"{tokens['scored_with_gradient']:,} scored with gradient, {tokens['scored_without_gradient']:,} without"
    say(
        "tokens",
        f"at most {tokens['total']:,} per step: {tokens['sampled']:,} sampled, {tokens['prompts']:,} of prompts, {scored}",
    )
    _show_memory(say, plan["memory"])
    for line in (*plan["notes"], *plan["doubts"]):
        say("note", line)
    if plan["skipped"]:
        say("note", f"{plan['skipped']} malformed rows are left out")


def _parameters(memory: dict[str, Any]) -> str:
    if memory["estimate"] is None:
        return ""
    return (
        f", {memory['parameters'] / 1e9:.3g} billion parameters, {memory['adapter_parameters'] / 1e6:.3g} million in the adapter"
    )


def _show_memory(say: Callable[[str, str], None], memory: dict[str, Any]) -> None:
    found = memory["estimate"]
    if found is None:
        say("memory", f"no estimate: {memory['note']}")
        return
    size = {name: _bytes(value) for name, value in found.items() if name not in ("peak_phase", "microbatch_rows")}
    here = "GPU" if memory["device"] == "gpu" else "CPU"
    say("memory", f"ESTIMATE for this run on this machine's {here}: peak about {size['peak']}, in {found['peak_phase']}")
    say("", f"({memory['note']})")
    if memory["device"] == "cpu":
        say("", f"the process needs about {_bytes(memory['needed'])} ({memory['needed_note']})")
    if memory["processes"] > 1:
        layout = "the base sharded over them (fsdp2)" if memory["dealt"] else "the base whole on each (ddp)"
        say("", f"of each of {memory['processes']} processes, {layout}; by formula, not measured with several")
    say("", f"weights {size['weights']}, adapter and optimizer {size['adapter']}; and the largest of")
    say("", f"sampling {size['sampling_cache']} of cache + {size['sampling_logits']} of logits; scoring {size['scoring']};")
    say("", f"evaluation {size['evaluation']};")
    rows = f"a micro-batch of {found['microbatch_rows']} CoTs"
    beside = max(("logits_chunk", "reference_pass", "recomputed_layer"), key=lambda name: found[name])
    what = {
        "logits_chunk": "logits",
        "reference_pass": "the frozen policy's pass",
        "recomputed_layer": "a layer in the backward pass",
    }[beside]
    say("", f"training {size['activations']} of activations ({rows}) + {size[beside]} of {what}")
    _show_cards(say, memory)


def _show_cards(say: Callable[[str, str], None], memory: dict[str, Any]) -> None:
    """Which GPUs are large enough, and what would make the smallest of the others do."""
    fit = [card for card, fits in memory["cards"].items() if fits]
    peak = f"peak {_bytes(memory['gpu']['peak'])}, in {memory['gpu']['peak_phase']}; {memory['gpu_note']}"
    if memory["device"] == "cpu":
        say("on a GPU", "ESTIMATE for the same run on a CUDA device instead of this CPU:")
    say("" if memory["device"] == "cpu" else "on a GPU", f"needs {_bytes(memory['gpu_needed'])} ({peak})")
    say("fits", ", ".join(fit) if fit else "none of " + ", ".join(memory["cards"]))
    advice = memory["advice"]
    if advice is None:
        return
    why = f"{_bytes(advice['missing'])} short in {advice['phase']}"
    settings = ", ".join(f"{key}={str(value).lower()}" for key, value in advice["settings"].items())
    then = (
        f"it fits with {settings} (peak {_bytes(advice['peak'])})"
        if settings
        else "no memory setting suffices: lower rollouts.group_size or rollouts.max_cot_tokens, or use a smaller model"
    )
    say("does not", f"{advice['card']}: {why}; {then}")


def _bytes(value: float) -> str:
    return f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.3g} MB"
