"""A trained adapter, or the merged model, as a directory others can load, with a model card."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from markovlm import __version__
from markovlm.errors import UserError
from markovlm.runs.rows import read_rows, writing
from markovlm.runs.targets import Target

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def export(target: Target, to: Path, merge: bool) -> Path:
    """Write the adapter (or with `merge` base and adapter in one) to the new directory `to`, whole or not at all.

    Raises UserError where `to` is in the way or there is no checkpoint to export.
    """
    if target.run is None or target.adapter is None:
        raise UserError(f"{target.name}: has no trained adapter; export takes a run")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: exists; name a new directory")
    beside = to.with_name(f".{to.name}.tmp")
    with writing(to):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        if merge:
            _write_merged(target, beside)
        else:
            for name in _ADAPTER_FILES:
                shutil.copy2(target.adapter / name, beside / name)
        (beside / "README.md").write_text(model_card(target, merge), encoding="utf-8")
        if to.exists():
            to.rmdir()
        os.replace(beside, to)
    return to


def _write_merged(target: Target, directory: Path) -> None:
    setup = target.prepare()
    merged = setup.lm.model.merge_and_unload()
    merged.save_pretrained(str(directory))
    setup.lm.tokenizer.save_pretrained(str(directory))


def model_card(target: Target, merged: bool) -> str:
    """What the model is, how it was trained, and every accuracy that was measured of this checkpoint."""
    config = target.config
    assert target.run is not None
    rows = [row for row in read_rows(target.run.path / "evals.jsonl") if row.get("checkpoint") == target.checkpoint]
    measured = "\n".join(_measured(row) for row in rows) or "This checkpoint was not evaluated."
    kind = "Merged model" if merged else "LoRA adapter"
    load = (
        'AutoModelForCausalLM.from_pretrained("THIS_DIRECTORY")'
        if merged
        else f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{config.model}"), "THIS_DIRECTORY")'
    )
    return f"""---
base_model: {config.model}
library_name: {"transformers" if merged else "peft"}
tags: [markovlm]
---

# {kind}: {config.model}, trained on {config.task} so that its chain of thought carries the answer

The model writes a chain of thought from a question; the question is then hidden and the same model predicts the answer from
the chain of thought alone ({config.objective.conditioning.replace("_", "-")} reward).

- trained with markovlm {__version__}: objective `{config.objective.name}`, step {target.step} of {config.training.steps}, seed {config.seed}
- prompts: style `{config.prompt.style}`, at most {config.rollouts.max_cot_tokens} CoT tokens, temperature {config.rollouts.temperature}

## Measured

{measured}

## Load

```python
{load}
```
"""


def _measured(row: dict[str, Any]) -> str:
    how = row["how"]
    cot = "greedy CoT" if how["decoding"] == "greedy" else f"CoT sampled at temperature {how['temperature']:g}"
    result = f"answer log-likelihood {row['logprob']:.3f} nats per token"
    if row["accuracy"] is not None:
        low, high = row["ci95"]
        result = f"accuracy {row['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}), {result}"
    return f"- {row['split']} split, n = {row['n']}: {result}; {cot}, {how['conditioning'].replace('_', '-')}, answers by the {how['reader']}"
