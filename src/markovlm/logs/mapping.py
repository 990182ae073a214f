"""`--map reward=train/reward`: what a file's columns are called, from the command line or a saved file."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml

from markovlm.content import parse_yaml, read_content
from markovlm.errors import UserError
from markovlm.logs.frameworks import Framework
from markovlm.logs.schema import COMPONENT, COMPONENT_STD, METRIC

_MOST = 1 << 20  # bytes of a mapping
SHORT = {  # what people call it -> ours
    "reward": "reward_mean",
    "length": "cot_length",
    "completion_length": "cot_length",
    "clipped": "cot_length_saturated_fraction",
    "frac_reward_zero_std": "groups_without_spread",
    "clip_fraction": "ratio_clipped_fraction",
    "learning_rate": "lr",
    "mismatch": "sampler_gap",
}


def our_key(name: str, where: str) -> str:
    """Our name for what a mapping calls `name`. Raises UserError for an unknown name."""
    ours = SHORT.get(name, name)
    if ours == "step" or ours in METRIC or (ours.startswith((COMPONENT, COMPONENT_STD)) and not ours.endswith("/")):
        return ours
    near = get_close_matches(name, [*SHORT, *METRIC], 1)
    raise UserError(
        f"{where}: unknown metric {name!r}{f'; did you mean {near[0]}?' if near else ''} (docs/metrics.md lists them; reward/NAME is a component)"
    )


def read_mapping(entries: Sequence[str]) -> Framework | None:
    """The dialect that `--map` describes: `OURS=THEIRS` each, or a YAML or JSON file of `OURS: THEIRS` (or a list of them)."""
    keys: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if "=" in entry:
            name, _, theirs = entry.partition("=")
            if not theirs.strip():
                raise UserError(f"--map {entry}: must be OURS=THEIRS, for example --map reward=train/reward")
            key = our_key(name.strip(), f"--map {entry}")
            keys[key] = (*keys.get(key, ()), theirs.strip())
        else:
            keys |= _read_file(Path(entry))
    if not keys:
        return None
    step = keys.pop("step", ())
    return Framework(
        name="", keys=keys, told_by=(r"(?!)",), step=(*step, "step") if step else ("step", "Step", "global_step", "_step")
    )


def _read_file(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        found = parse_yaml(read_content(path, _MOST).decode())
    except OSError as error:
        raise UserError(f"--map {path}: {error.strerror}; give OURS=THEIRS or a file of OURS: THEIRS") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"--map {path}: not YAML or JSON; write a line OURS: THEIRS for each metric") from None
    if not isinstance(found, dict) or not found:
        raise UserError(f"--map {path}: contains no mapping; write a line OURS: THEIRS for each metric")
    out: dict[str, tuple[str, ...]] = {}
    for name, theirs in found.items():
        names = theirs if isinstance(theirs, list) else [theirs]
        if not all(isinstance(one, str) for one in names):
            raise UserError(f"--map {path}: {name}: must be a column's name, or a list of names")
        out[our_key(str(name), f"--map {path}")] = tuple(names)
    return out
