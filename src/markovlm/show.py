"""Results as people and programs read them: the tables and JSON objects of the commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from markovlm.config import RunConfig, flatten
from markovlm.console import percent, stdout, table
from markovlm.errors import UserError
from markovlm.models.registry import KNOWN, SUGGESTED
from markovlm.tasks import get_task, prompts, task_names, task_options
from markovlm.tasks.base import Example

if TYPE_CHECKING:  # these import torch, which `markovlm tasks` and `models` do without
    from markovlm.ask import Asked
    from markovlm.demo import DemoResult

_SHOWN_SKIPS = 5  # lines of skipped rows


def show_demo(result: DemoResult) -> None:
    """The table of `markovlm demo`."""
    from markovlm.analysis.show import show_summary

    console = stdout()
    rows = []
    for name, one in (("base", result.base), ("trained", result.trained)):
        summary = one.evaluation.summary()
        rows.append([name, str(summary["n"]), percent(summary), f"{summary['logprob']:.3f}"])
    title = "Accuracy from the CoT alone, held-out questions (95 % Wilson interval)"
    console.print(table(title, ["model", "n", "accuracy", "ln pi(answer|CoT)"], rows))
    at = result.changed_example()
    before, after = result.base.evaluation.readings[at], result.trained.evaluation.readings[at]
    console.print(Text(f"\nQuestion  {before.question}    gold answer {before.gold}"))
    for name, reading in (("before", before), ("after", after)):
        console.print(Text(f"{name:8}  {reading.cot}  ->  {reading.answer}"))
    console.print()
    show_summary(console, result.studies.results)
    times = f"{result.steps} steps, {result.seconds:.0f} s with both evaluations, {result.total_seconds:.0f} s in all"
    console.print(Text(f"\nrun: {result.run}  ({times})"))
    console.print(Text(f"report: {result.report}"))
    console.print(Text(f"next: markovlm ask {result.run} 17+4+79"))


def show_asked(checkpoint: str, asked: Asked) -> None:
    """Question, CoT, answer."""
    console = stdout()
    console.print(Text(f"question  {asked.question}"))
    console.print(Text(f"CoT       {asked.cot}"))
    answer = asked.answer if asked.answer is not None else f"no answer found in {asked.raw_answer!r}"
    console.print(Text(f"answer    {answer}    (read from the CoT alone, {checkpoint})"))


def show_models() -> None:
    """Embedded models with their defaults, and Hub ids to try."""
    console = stdout()
    console.print(table("Embedded (--model NAME)", ["name", "what"], [[m.name, m.summary] for m in KNOWN.values()]))
    for model in KNOWN.values():
        console.print(Text(f"  defaults of {model.name}: " + "  ".join(f"{k}={v}" for k, v in flatten(model.defaults).items())))
    console.print()
    console.print(table("From the Hub (any other causal LM works too)", ["id", "what"], [[k, v] for k, v in SUGGESTED.items()]))


def show_plan(plan: dict[str, Any]) -> None:
    """What `markovlm train --dry-run` found: `training.plan.plan`."""
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
    say("evaluations", f"{evaluations}; checkpoints {plan['checkpoints']}")
    say("prompts", f"{prompt['mean']} tokens on average, {prompt['longest']} the longest ({prompt['source']})")
    scored = f"{tokens['scored_with_gradient']:,} scored with gradient, {tokens['scored_without_gradient']:,} without"
    say(
        "tokens", f"{tokens['total']:,} a step at most: {tokens['sampled']:,} sampled, {tokens['prompts']:,} of prompts, {scored}"
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
        f", {memory['parameters'] / 1e9:.3g} billion parameters, {memory['adapter_parameters'] / 1e6:.3g} million of the adapter"
    )


def _show_memory(say: Callable[[str, str], None], memory: dict[str, Any]) -> None:
    found = memory["estimate"]
    if found is None:
        say("memory", f"no estimate: {memory['note']}")
        return
    size = {name: f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.3g} MB" for name, value in found.items()}
    say("memory", f"ESTIMATE: peak about {size['peak']} ({memory['note']})")
    say("", f"weights {size['weights']}, adapter and optimizer {size['adapter']}; and the largest of")
    say("", f"sampling {size['sampling_cache']} of cache + {size['sampling_logits']} of logits; evaluation {size['evaluation']};")
    rows = f"a micro-batch of {found['microbatch_rows']} CoTs"
    say("", f"training {size['activations']} of activations ({rows}) + {size['logits_chunk']} of logits")


# ----------------------------------------------------------------------------------------------------------- tasks


def tasks_json() -> dict[str, Any]:
    """All tasks with their defaults."""
    return {"tasks": [_task_row(name) for name in task_names()]}


def _task_row(name: str) -> dict[str, Any]:
    task = get_task(name)
    return {
        "name": name,
        "summary": task.summary,
        "answer_type": task.answer_type,
        "splits": list(task.splits),
        "cot_tokens": task.default_cot_tokens,
        "extractors": list(task.extractors),
        "hub": task.hub.path if task.hub else None,
        "licence": task.licence,
        "options": task_options(name),
    }


def show_tasks() -> None:
    """A row a task, and its options."""
    rows = [
        [
            t["name"],
            t["summary"],
            t["answer_type"],
            str(t["cot_tokens"]),
            ", ".join(t["splits"]),
            t["hub"] or ("your file" if t["name"] == "custom" else "generated"),
            t["licence"],
        ]
        for t in tasks_json()["tasks"]
    ]
    console = stdout()
    if not console.is_terminal:
        console.width = 200
    console.print(table("Tasks", ["name", "what", "answer", "CoT tokens", "splits", "Hub", "licence"], rows))
    console.print(Text("\nOptions (--option KEY=VALUE)"))
    for name in task_names():
        for option, text in task_options(name).items():
            console.print(Text(f"  {name}: {option}: {text}"))


@dataclass(frozen=True, slots=True)
class Rendered:
    """An example as a model sees it."""

    cot_prompt: str
    reader_prompt: str  # the question hidden; the CoT follows
    target: str  # answer header and gold answer


@dataclass(frozen=True, slots=True)
class Preview:
    """Parsed examples of a split, with the prompts they become."""

    task: str
    split: str
    n: int | None  # None: generated without end
    examples: list[Example]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    prompts: list[Rendered]  # one an example

    def to_json(self) -> dict[str, Any]:
        """The shape that `markovlm tasks NAME --json` promises."""
        shown = [{"id": e.id, "question": e.question, "choices": list(e.choices), "answer": e.answer} for e in self.examples]
        return {
            "task": self.task,
            "split": self.split,
            "n": self.n,
            "examples": shown,
            "prompts": [asdict(rendered) for rendered in self.prompts],
            "skipped": len(self.skipped),
            "skipped_rows": list(self.skipped[:_SHOWN_SKIPS]),
            "notes": list(self.notes),
        }


def preview_task(config: RunConfig, split: str, limit: int, style: str | None, model: str | None) -> Preview:
    """Load a split, a single file whole, and render its first examples.

    `model`: whose tokenizer cuts texts and has the chat template; without `style` it also decides the prompt style.
    """
    if limit < 1:
        raise UserError(f"--limit {limit}: must be at least 1")
    task = get_task(config.task, config.task_options)
    tokenizer = None
    if model is not None:
        from markovlm.models.load import load_tokenizer

        tokenizer = load_tokenizer(model, config.loading)
    from markovlm.training.setup import is_endless, load_examples

    loaded = load_examples(config, task, split, tokenizer=tokenizer, disjoint=False)
    size = len(loaded.examples)
    examples = [loaded.examples[i] for i in range(min(limit, size))]
    chosen: Any = style or ("plain" if tokenizer is None else prompts.choose_style(tokenizer))
    tokens = config.rollouts.max_cot_tokens or task.default_cot_tokens
    rendered = [
        Rendered(
            prompts.cot_prompt(task, e, style=chosen, cot_tokens=tokens, tokenizer=tokenizer),
            prompts.reader_prompt(task, e, style=chosen, cot_tokens=tokens, conditioning="markovian", tokenizer=tokenizer),
            prompts.answer_header(chosen) + prompts.answer_text(e, style=chosen),
        )
        for e in examples
    ]
    n = None if is_endless(loaded.examples) else size
    return Preview(task.name, split, n, examples, loaded.skipped, loaded.notes, rendered)


def show_preview(preview: Preview) -> None:
    """Counts, examples, prompts."""
    console = stdout()
    count = "generated without end" if preview.n is None else f"{preview.n} examples"
    console.print(Text(f"{preview.task}, {preview.split} split: {count}, {len(preview.skipped)} rows skipped"))
    for line in preview.notes:
        console.print(Text(f"  note: {line}"), soft_wrap=True)
    for line in preview.skipped[:_SHOWN_SKIPS]:
        console.print(Text(f"  skipped: {line}"), soft_wrap=True)
    if len(preview.skipped) > _SHOWN_SKIPS:
        console.print(Text(f"  skipped: {len(preview.skipped) - _SHOWN_SKIPS} more"))
    for example, rendered in zip(preview.examples, preview.prompts, strict=True):
        console.print(Text(f"\n{example.id}    gold answer {example.answer}", style="bold"), soft_wrap=True)
        console.print(Text(f"{rendered.cot_prompt}<CoT>"), soft_wrap=True)
        console.print(Text(f"-- read from: {rendered.reader_prompt}<CoT>{rendered.target}", style="dim"), soft_wrap=True)
