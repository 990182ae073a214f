"""Tasks, and previews of their examples and prompts."""

from __future__ import annotations

from rich.text import Text

from markovlm.present.table import Columns, table_of
from markovlm.runs.preview import Preview
from markovlm.tasks import task_names, task_options
from markovlm.tasks.listing import tasks_json
from markovlm.terminal.console import say, show, stdout

_SHOWN_SKIPS = 5  # lines of skipped rows


def show_tasks() -> None:
    """Print one row per task, and its options."""
    columns: Columns = {
        "name": "name", "what": "summary", "answer": "answer_type", "CoT tokens": "cot_tokens", "splits": lambda t: ", ".join(t["splits"]),
        "Hub": lambda t: t["hub"] or ("your file" if t["licence"] == "yours" else "generated"), "licence": "licence",
    }  # fmt: skip
    console = stdout()
    if not console.is_terminal:
        console.width = 200
    show(console, table_of("tasks", "Tasks", tasks_json()["tasks"], columns))
    console.print(Text("\nOptions (--option KEY=VALUE)"))
    for name in task_names():
        for option, text in task_options(name).items():
            console.print(Text(f"  {name}: {option}: {text}"))


def show_preview(preview: Preview) -> None:
    """Print counts, examples and prompts."""
    console = stdout()
    count = "generated endlessly" if preview.n is None else f"{preview.n} examples"
    console.print(Text(f"{preview.task}, {preview.split} split: {count}, {len(preview.skipped)} rows skipped"))
    for line in preview.notes:
        say(console, f"  note: {line}")
    for line in preview.skipped[:_SHOWN_SKIPS]:
        say(console, f"  skipped: {line}")
    if len(preview.skipped) > _SHOWN_SKIPS:
        console.print(Text(f"  skipped: {len(preview.skipped) - _SHOWN_SKIPS} more"))
    for example, rendered in zip(preview.examples, preview.prompts, strict=True):
        console.print(Text(f"\n{example.id}    gold answer {example.answer}", style="bold"), soft_wrap=True)
        say(console, f"{rendered.cot_prompt}<CoT>")
        console.print(Text(f"-- read from: {rendered.reader_prompt}<CoT>{rendered.target}", style="dim"), soft_wrap=True)
