"""`markovlm tasks`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import Command, config_flags, overrides, print_json
from markovlm.config import build_config


@click.command(cls=Command, short_help="List the tasks; with NAME, show parsed examples and exact prompts.")
@click.argument("name", required=False)
@click.option("--split", default="test", help="split to preview [default test]")
@click.option("--limit", type=int, default=3, help="examples to show [default 3]")
@click.option(
    "--style",
    type=click.Choice(["plain", "chat", "compact"]),
    help="prompt style to show [default plain, or that of --model]",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@config_flags("data", "task_options", "seed", "model", "prompt.mention_budget", "prompt.answer_header", "rollouts.max_cot_tokens")
def tasks(name: str | None, split: str, limit: int, style: str | None, as_json: bool, **flags: Any) -> None:
    """List the tasks; with NAME, preview its parsed examples and exact prompts."""
    from markovlm.models.registry import defaults_under
    from markovlm.runs.preview import preview_task
    from markovlm.tasks.listing import tasks_json
    from markovlm.terminal.tasks import show_preview, show_tasks

    if name is None:
        print_json(tasks_json()) if as_json else show_tasks()
        return
    over = overrides(flags)
    layer = {**over, "task": name}
    config = build_config(defaults_under(layer) if "model" in over else {}, layer, source="tasks")
    preview = preview_task(config, split, limit, style, model=over.get("model"))
    print_json(preview.to_json()) if as_json else show_preview(preview)
