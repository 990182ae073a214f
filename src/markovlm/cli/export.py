"""`markovlm export`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.common import force_flag
from markovlm.cli.flags import Command, print_json
from markovlm.errors import UserError
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="Write the trained adapter or merged model, with a model card.")
@click.argument("run")
@click.option("--to", type=click.Path(path_type=Path), help="new directory [default with --push: runs/exports/NAME]")
@click.option("--merge", is_flag=True, help="write the base model with the adapter merged in, instead of the adapter alone")
@click.option("--checkpoint", default="last", help="the checkpoint: last, best, or a step [default last]")
@click.option("--push", metavar="ORG/NAME", help="upload to this Hugging Face Hub repository; it is created if it does not exist")
@click.option("--private", is_flag=True, help="with --push: make a new repository private")
@click.option(
    "--loading.trust_remote_code", "trust", type=bool, help="with --merge: run Python code found in the model's repository"
)
@click.option("--base-model", metavar="ID", help="Hub id of the base model, if the run used a local directory")
@click.option("--dry-run", is_flag=True, help="write and upload nothing; show what would be written, and the model card")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@force_flag
def export(
    run: str, to: Path | None, merge: bool, checkpoint: str, push: str | None, private: bool, base_model: str | None, dry_run: bool,
    as_json: bool, trust: bool | None,
) -> None:  # fmt: skip
    """Write the trained adapter (or merged model) as a directory that transformers and PEFT can load, with a model card; --push
    publishes it."""
    from markovlm.runs.targets import open_targets

    if trust is not None and not merge:
        raise UserError("--loading.trust_remote_code is only for --merge: exporting an adapter does not load its base model")
    if to is None and push is None:
        raise UserError("export: give a destination: --to DIRECTORY, or --push ORG/NAME")
    target = open_targets(run, checkpoint, {} if trust is None else {"loading": {"trust_remote_code": trust}})[0]
    from markovlm.runs.export import check_merge, is_hub_id, model_card
    from markovlm.runs.export import export as write_export
    from markovlm.runs.publish import check_repository, plan_push
    from markovlm.runs.publish import push as upload

    if push is not None:
        check_repository(push)
    if push is not None and base_model is None and not merge and not is_hub_id(target.config.model):
        raise UserError(
            f"--push: the run's base is {target.config.model!r}, which others cannot load; give its Hub id with --base-model ID, or use --merge"
        )
    if dry_run:
        if target.run is None or target.adapter is None:
            raise UserError(f"{target.name}: has no trained adapter; export takes a run")
        check_merge(target, merge)
        card = model_card(target, merge, base_model)
        report = {"checkpoint": target.checkpoint, "merged": merge, "path": to and str(to), "repository": push, "card": card}
        print_json(report) if as_json else say(
            f"dry run: nothing is written or uploaded{f' to {push}' if push else ''}\n\n{card}"
        )
        return
    folder = to or Path("runs") / "exports" / str(push).replace("/", "--")
    written = write_export(target, folder, merge, base_model)
    address = None
    if push is not None:
        planned = plan_push(written, push, private, f"{target.checkpoint} of a markovlm run on {target.config.task}")
        address = upload(written, planned)
    if as_json:
        print_json(
            {"path": str(written), "checkpoint": target.checkpoint, "merged": merge, "repository": push, "address": address}
        )
    else:
        say(f"{target.checkpoint} of {run} written to {written}" + (f" and uploaded to {address}" if address else ""))
