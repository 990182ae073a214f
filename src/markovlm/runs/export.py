"""Write a trained adapter, or the merged model, to a directory that others can load, with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from markovlm._version import __version__
from markovlm.config import RunConfig, dump_yaml
from markovlm.errors import UserError
from markovlm.intervals import estimate_text
from markovlm.models.quantization import loading_snippet
from markovlm.models.registry import FETCHED, KNOWN
from markovlm.runs.asking import hub_of, task_of
from markovlm.runs.manifest import ADAPTER_FILES, check_checkpoint, recorded, write_manifest
from markovlm.runs.rows import read_rows, whole_directory
from markovlm.runs.targets import BASE, Target


def export(target: Target, to: Path, merge: bool, base: str | None = None) -> Path:
    """Write the adapter (with `merge`: base model and adapter merged) to the new directory `to`, atomically.

    `base`: what the base model is called where the export goes (a Hub id), if not as in the run's configuration. Raises UserError if
    `to` exists or there is no checkpoint to export.
    """
    if target.run is None or target.adapter is None:
        raise UserError(f"{target.name}: has no trained adapter to export; name a run")
    check_merge(target, merge)
    check_checkpoint(target.adapter)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: already exists; name a new directory")
    with whole_directory(to) as beside:
        if merge:
            _write_merged(target, beside)
        else:
            _copy_adapter(target.adapter, beside, base or (target.config.model if target.config.model in KNOWN else None))
            write_manifest(beside, recorded(target.run.path), target.step or 0, names=ADAPTER_FILES)
        (beside / "README.md").write_text(model_card(target, merge, base), encoding="utf-8")
    return to


def check_merge(target: Target, merge: bool) -> None:
    """Raise UserError for a merge into a quantized base: the result would differ from the model that was measured."""
    quantization = target.config.loading.quantization
    if merge and quantization != "none":
        raise UserError(
            f"--merge: {target.name} was trained on a base in {quantization}; merged into full weights, it would be a different model. "
            "Export the adapter (without --merge); its model card says how to load it"
        )


def _copy_adapter(adapter: Path, to: Path, base: str | None) -> None:
    for name in ADAPTER_FILES:
        shutil.copy2(adapter / name, to / name)
    if base is not None:
        config = json.loads((to / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base
        (to / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _write_merged(target: Target, directory: Path) -> None:
    setup = target.prepare()
    merged = setup.lm.model.merge_and_unload()
    merged.save_pretrained(str(directory))
    setup.lm.tokenizer.save_pretrained(str(directory))
    if (known := FETCHED.get(target.config.model)) is not None:
        for name in known.fetched_from.notices:
            shutil.copy2(known.path / name, directory / name)


def model_card(target: Target, merged: bool, base: str | None = None) -> str:
    """A Markdown model card: what the model is, how it was trained, and every accuracy measured of this checkpoint and of the base."""
    config = target.config
    assert target.run is not None
    rows = read_rows(target.run.path / "evals.jsonl")
    own = [row for row in rows if row.get("checkpoint") == target.checkpoint]
    untrained = [row for row in rows if row.get("checkpoint") == BASE]
    measured = "\n".join(_measured(row) for row in own) or "This checkpoint was not evaluated."
    if own and untrained:
        measured += "\n\nThe untrained base, for comparison:\n\n" + "\n".join(_measured(row) for row in untrained)
    kind = "Merged model" if merged else "LoRA adapter"
    name = _without_paths(config, base).model
    quantization = config.loading.quantization
    how = "" if quantization == "none" else f", {loading_snippet(quantization)}"
    load = (
        'AutoModelForCausalLM.from_pretrained("THIS_REPOSITORY")'
        if merged
        else f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({_as_argument(name)}{how}), "THIS_REPOSITORY")'
    )
    if not merged and name in KNOWN:  # which is no name on the Hub
        load = f"from markovlm.models.registry import resolve\n\n{load}"
    source = FETCHED[name].fetched_from if name in FETCHED else None
    whose = (
        ""
        if source is None
        else f"\n- base: {source.title}; licence: {source.licence}" + (f", {source.terms}" if source.terms else "")
    )
    trained_on = "" if not how else f"\n- base quantized to {quantization} by bitsandbytes, in training and in what was measured"
    trained_on += whose
    reading = config.objective.conditioning.replace("_", "-")
    head = yaml.safe_dump(_metadata(target, own, merged, base), sort_keys=False, allow_unicode=True)
    return f"""---
{head}---

# {kind}: {name}, trained on {config.task} so that its chain of thought carries the answer

The model writes a chain of thought from a question; the question is then hidden and the same model predicts the answer from
the chain of thought alone ({reading} reward).

- trained with markovlm {__version__}: objective `{config.objective.name}`, reward `{config.objective.reward}`,
  step {target.step} of {config.training.steps}, seed {config.seed}
- prompts: style `{config.prompt.style}`, at most {config.rollouts.max_cot_tokens} CoT tokens, temperature {config.rollouts.temperature}{trained_on}

## Measured

{measured}

Intervals are 95 % Wilson intervals over questions. Rows that differ in how they were made are not comparable.

## Load

```python
{load}
```

The whole configuration of the run:

```yaml
{dump_yaml(_without_paths(config, base)).strip()}
```
"""


def _as_argument(model: str) -> str:
    """In Python: a name on the Hub, or the directory of a model that has a name here alone."""
    return f'resolve("{model}")' if model in KNOWN else f'"{model}"'


def _without_paths(config: RunConfig, base: str | None) -> RunConfig:
    """For others: where files lie on this machine is nobody's business."""
    data = config.data.model_copy(update={"path": config.data.path and Path(config.data.path).name})
    tasks = {
        name: share.model_copy(update={"path": share.path and Path(share.path).name}) for name, share in config.tasks.items()
    }
    model = base or (config.model if config.model in KNOWN or is_hub_id(config.model) else Path(config.model).name)
    plugins = tuple(Path(path).name for path in config.plugins)
    return config.model_copy(update={"data": data, "tasks": tasks, "model": model, "plugins": plugins})


def _metadata(target: Target, rows: list[dict[str, Any]], merged: bool, base: str | None) -> dict[str, Any]:
    """The card's front matter, with results in the Hub's own form (`model-index`). A path of this machine names no base."""
    config = target.config
    found: dict[str, Any] = {"library_name": "transformers" if merged else "peft", "tags": ["markovlm", "chain-of-thought"]}
    if base is not None or is_hub_id(config.model):
        found["base_model"] = base or config.model
    hub = hub_of(config) or task_of(config).hub
    if hub is not None and config.data.path is None:
        found["datasets"] = [hub.path]
    results = [
        {
            "task": {"type": "text-generation", "name": f"{config.task}: answer read from the chain of thought alone"},
            "dataset": {"type": hub.path if hub is not None else config.task, "name": config.task, "split": row["split"]},
            "metrics": [{"type": "accuracy", "value": round(row["accuracy"], 4), "name": f"accuracy (n={row['n']})"}],
        }
        for row in rows
        if row["accuracy"] is not None and row.get("role") == "test"
    ]
    if results:
        found["model-index"] = [{"name": f"{Path(config.model).name}-{config.task}-markovlm", "results": results}]
    return found


def is_hub_id(model: str) -> bool:
    """Whether `model` looks like a name on the Hub: neither a bundled model nor a path on this machine."""
    return model not in KNOWN and not model.startswith((".", "/", "~")) and not Path(model).exists()


def _measured(row: dict[str, Any]) -> str:
    how = row["how"]
    cot = "greedy CoT" if how["decoding"] == "greedy" else f"CoT sampled at temperature {how['temperature']:g}"
    result = f"answer log-likelihood {row['logprob']:.3f} nats per token"
    if row["accuracy"] is not None:
        result = f"accuracy {estimate_text(row['accuracy'], *row['ci95'])}, {result}"
    return f"- {row['split']} split, n = {row['n']}: {result}; {cot}, {how['conditioning'].replace('_', '-')}, answers by the {how['reader']}"
