"""Parsed examples of a split, with the prompts made from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from markovlm.config import RunConfig
from markovlm.errors import UserError
from markovlm.runs.asking import task_of
from markovlm.tasks import prompts
from markovlm.tasks.base import Example

_SHOWN_SKIPS = 5  # lines of skipped rows


@dataclass(frozen=True, slots=True)
class Rendered:
    """An example as a model sees it."""

    cot_prompt: str
    reader_prompt: str  # the question hidden; the CoT follows
    target: str  # answer header and gold answer


@dataclass(frozen=True, slots=True)
class Preview:
    """Parsed examples of a split, with the prompts made from them."""

    task: str
    split: str
    n: int | None  # None: generated without end
    examples: list[Example]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    prompts: list[Rendered]  # one an example

    def to_json(self) -> dict[str, Any]:
        """The object that `markovlm tasks NAME --json` prints."""
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

    `model`: whose tokenizer cuts texts and has the chat template; without `style` it also decides the prompt style. The CoT budget, whether
    prompts mention it, and the answer header are those of the configuration.
    """
    if limit < 1:
        raise UserError(f"--limit {limit}: must be at least 1")
    task = task_of(config)
    tokenizer = None
    if model is not None:
        from markovlm.models.load import load_tokenizer

        tokenizer = load_tokenizer(model, config.loading)
    from markovlm.runs.setup import is_endless, load_examples

    loaded = load_examples(config, task, split, tokenizer=tokenizer, disjoint=False)
    size = len(loaded.examples)
    examples = [loaded.examples[i] for i in range(min(limit, size))]
    chosen: Any = style or ("plain" if tokenizer is None else prompts.choose_style(tokenizer))
    tokens = config.rollouts.max_cot_tokens or task.default_cot_tokens if config.prompt.mention_budget else prompts.UNSAID
    header = prompts.answer_header(chosen) if config.prompt.answer_header is None else config.prompt.answer_header
    rendered = [
        Rendered(
            prompts.cot_prompt(task, e, style=chosen, cot_tokens=tokens, tokenizer=tokenizer),
            prompts.reader_prompt(task, e, style=chosen, cot_tokens=tokens, conditioning="markovian", tokenizer=tokenizer),
            header + prompts.answer_text(e, style=chosen),
        )
        for e in examples
    ]
    n = None if is_endless(loaded.examples) else size
    return Preview(task.name, split, n, examples, loaded.skipped, loaded.notes, rendered)
