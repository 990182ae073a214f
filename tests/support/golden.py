"""JSON values that must stay as they are: kept in `tests/golden/`, compared number by number.

After a wanted change: `MARKOVLM_WRITE_GOLDEN=1 python -m pytest tests/test_golden.py`, then read the difference in git.

Bytes can't be promised across machines: another CPU adds the products of a matrix in another order. So the runs compute in float64,
where that changes the last digits and (but for a draw at the very edge of a token's share) no token, and numbers are compared to
`RELATIVE` of each other, everything else exactly, the order of keys included. What is measured (seconds, memory) is only looked at for
its type, and directories of the test are replaced by `<tmp>`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "golden"
ROOT = Path(__file__).parents[2]
WRITE = "MARKOVLM_WRITE_GOLDEN"
RELATIVE, ABSOLUTE = 1e-6, 1e-9
DIGITS = 9  # significant ones that are kept
MOST = 6  # items that are kept of a long list of records; how many there are is kept too
MEASURED = re.compile(r"(^|_)seconds(_|$)|_per_second$|(^|_)memory$|^(time|mtime|started|created)$")
FEW_SHOWN = 12


def check(name: str, value: Any, tmp: Path | None = None) -> None:
    """Compare with `tests/golden/NAME.json`, or write it where `MARKOVLM_WRITE_GOLDEN` is set."""
    found = plain(value, "" if tmp is None else str(tmp))
    path = FOLDER / f"{name}.json"
    if os.environ.get(WRITE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_written(found), encoding="utf-8")
    assert path.is_file(), f"{path} is not there; write it with {WRITE}=1"
    differences = list(differing(json.loads(path.read_text(encoding="utf-8")), found))
    shown = "\n".join(differences[:FEW_SHOWN])
    more = f"\nand {len(differences) - FEW_SHOWN} more" if len(differences) > FEW_SHOWN else ""
    assert not differences, f"not as in {path.relative_to(ROOT)} (if that is wanted: {WRITE}=1):\n{shown}{more}"


def _written(value: Any) -> str:
    """JSON with a line for each key; a list of numbers or texts is one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: "[" + re.sub(r",\n\s*", ", ", found[1]) + "]", text) + "\n"


def plain(value: Any, tmp: str, key: str = "") -> Any:
    """What is kept of a JSON value."""
    if MEASURED.search(key) and not isinstance(value, Mapping | list):
        return f"<{type(value).__name__}>"
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else repr(value)
    if isinstance(value, str):
        text = value.replace(tmp, "<tmp>") if tmp else value
        return text.replace(str(ROOT), "<repository>")
    if isinstance(value, Mapping):
        return {str(k): plain(v, tmp, str(k)) for k, v in value.items()}
    items = [plain(item, tmp, key) for item in value]
    if len(items) > MOST and isinstance(items[0], dict | list):
        return [*items[:MOST], f"<{len(items)} in all>"]
    return items


def differing(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Where two plain values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        if list(old) != list(new):
            gone, come = [k for k in old if k not in new], [k for k in new if k not in old]
            moved = "" if gone or come else "the keys have another order"
            yield f"{place or 'top'}: " + (moved or f"lost {gone}, new {come}")
        for key in old:
            if key in new:
                yield from differing(old[key], new[key], f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place}: {len(old)} items, now {len(new)}"
        for number, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differing(a, b, f"{place}[{number}]")
    elif _number(old) and _number(new):
        if type(old) is not type(new) or not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            yield f"{place}: {old!r}, now {new!r}"
    elif old != new:
        yield f"{place}: {old!r:.200}, now {new!r:.200}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
