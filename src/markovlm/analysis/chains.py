"""Studies of chains: how long the damage to a state lasts, which of its words are read and which survive, which facts it holds when.

damage    s_{t+1} is damaged and the chain goes on from there with the same random streams: what is lost at lag 0, 1, 2, …
words     each word of a state is left out in turn: drop of what is read from it; and is the word in the next state?
facts     every question is put to every state: when does its answer enter the notes, how long does it stay?

Results are kept as they come, damage by its kinds and severities: an interrupted study continues, and what another call found stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markovlm.analysis.chain_damage import damage, damaged_steps
from markovlm.analysis.chain_facts import facts
from markovlm.analysis.chain_study import ChainStudy, open_chain_study
from markovlm.analysis.chain_words import words
from markovlm.analysis.perturb import Plan
from markovlm.analysis.study import Counting, kept_result, open_folder
from markovlm.evaluation.run import label_of
from markovlm.runs.rows import clean, replace_whole
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target
from markovlm.studies.files import check_result
from markovlm.tasks.base import Loaded

PARTS = ("damage", "words", "facts")
_WHOLE: Mapping[str, Callable[[ChainStudy], dict[str, Any] | None]] = {"words": words, "facts": facts}
_QUICK = ("delete", "truncate_front", "truncate_back", "digit_replace", "other_cot")
_SAME = ("kind", "chain", "checkpoint", "split", "task", "n", "texts", "seed", "state_tokens")


@dataclass(slots=True)
class _Kept:
    """The result as it grows, as JSON and as a page."""

    result: dict[str, Any]
    data: Path
    page: Path
    earlier: dict[str, Any] = field(default_factory=dict[str, Any])  # parts that an earlier call found on the same texts

    def add(self, part: str, found: dict[str, Any] | None) -> None:
        from markovlm.analysis.render_chains import chains_html

        self.result[part] = clean(found)
        whole = {**self.result, **{name: self.earlier[name] for name in self.earlier if name not in self.result}}
        check_result(whole)
        replace_whole(self.data, json.dumps(whole, ensure_ascii=False, allow_nan=False).encode())
        replace_whole(self.page, chains_html(whole).encode())


def chain_plan(plan: Plan) -> Plan:
    """The plan that was asked for; by default five perturbations at three severities, since every one runs the whole chain again."""
    return Plan(_QUICK, (0.2, 0.6, 1.0)) if plan == Plan() else plan


def study_chains(
    target: Target,
    setup: Setup,
    loaded: Loaded,
    split: str,
    parts: Sequence[str],
    plan: Plan,
    folder: Path,
    counting: Counting | None,
) -> tuple[dict[str, Any], list[Path]]:
    """Do the parts asked for on these texts; the result as JSON and as a page, both in `folder`.

    The result has what an earlier call found on the same texts too: its parts, and rows of other damage.
    """
    study = open_chain_study(setup, list(loaded.examples), counting)
    label = label_of(target, setup, split, study.how)
    result: dict[str, Any] = {
        "kind": "chains",
        "chain": study.prompter.chain.kind,
        "run": target.name,
        "checkpoint": target.checkpoint,
        "step": target.step or 0,
        "split": split,
        "task": target.config.task,
        "model": label.model,
        "conditioning": study.how.conditioning,
        "n": len(study.walks),
        "texts": study.digest,
        "state_tokens": study.prompter.cot_tokens,
        "seed": study.how.seed,
        "notes": list(loaded.notes),
    }
    stem = f"chains-{label.file.removesuffix('.jsonl')}-{study.digest[:4]}"
    data, page = (open_folder(folder).path / f"{stem}.{ending}" for ending in ("json", "html"))
    kept = _Kept(result, data, page, _earlier(data, result))
    for part in parts:
        if part == "damage":
            _damage(study, chain_plan(plan), kept)
        else:
            kept.add(part, kept.earlier[part] if part in kept.earlier else _WHOLE[part](study))
    return json.loads(data.read_bytes()), [data, page]


def _damage(study: ChainStudy, plan: Plan, kept: _Kept) -> None:
    """Cell by cell; those of earlier calls are not measured again."""
    rows = list((kept.earlier.get("damage") or {}).get("rows", ()))
    known = {(row["perturbation"], row["severity"]) for row in rows}
    steps = damaged_steps(study)
    for name, severity in plan.cells():
        if (name, severity) not in known:
            rows += damage(study, name, severity)
            kept.add("damage", {"steps_damaged": steps, "rows": rows})
    kept.add("damage", {"steps_damaged": steps, "rows": rows})


def _earlier(path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that were found on the same texts."""
    found = kept_result(path)
    if any(found.get(key) != result[key] for key in _SAME):
        return {}
    return {part: found[part] for part in PARTS if part in found}
