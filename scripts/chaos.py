"""What markovlm withstands, counted: kills, damaged files, full disks, hostile text, bombs, strangers' runs, servers that lie.

    python scripts/chaos.py                     # everything; an hour on two cores, more where they are shared
    python scripts/chaos.py --only documents,names  # some parts
    python scripts/chaos.py --share 0.1         # a tenth of the cases of each part, drawn at random
    python scripts/chaos.py --write             # and put the counts into docs/reliability.md

Each case is a command in a process of its own, which may do no more than its exit code and one line say: no traceback, no waiting, no memory
beyond a bound, no control character on the terminal, no temporary name left behind, and nothing of a stranger's run. Exit code 1 where one did.
Not part of the tests: what it found has tests of its own. Root is needed for the parts with full disks (they mount one), Linux for all.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import math
import os
import pkgutil
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts"), str(ROOT / "src")]

import peft  # noqa: E402, F401
import polars  # noqa: E402, F401
import torch  # noqa: E402
import transformers.models.llama.modeling_llama  # noqa: E402, F401
from chaos_parts import bombs, damage, hostile, kills, servers, strangers, together  # noqa: E402
from chaos_parts.harness import Case, Part, Place  # noqa: E402

import markovlm  # noqa: E402
from support import tiny  # noqa: E402

PARTS: dict[str, tuple[str, Part]] = {
    "kills": ("Training, killed at random moments", kills.training),
    "commands": ("Other commands, killed at random moments", kills.other_commands),
    "processes": ("One of two processes killed", kills.several_processes),
    "sweeps": ("Sweeps with cells that fail", kills.sweeps),
    "checkpoints": ("Damaged checkpoints", damage.checkpoints),
    "files": ("Other damaged files of a run", damage.other_files),
    "disks": ("Full and read-only disks", damage.disks),
    "together": ("Two processes on one run", together.one_run),
    "growing": ("Logs that grow while they are read", together.growing),
    "large": ("1 GB, and 2,000 files", together.large),
    "texts": ("Hostile text", hostile.texts),
    "names": ("Hostile names", hostile.names),
    "archives": ("Archives that unpack to gigabytes", bombs.archives),
    "documents": ("YAML and JSON bombs", bombs.documents),
    "odd": ("Pipes, devices, sockets, links that loop", bombs.no_files),
    "strangers": ("A stranger's run directory", strangers.directories),
    "secrets": ("Secrets", strangers.secrets),
    "servers": ("A sampler server that answers slowly, hugely or wrongly", servers.samplers),
}
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: written by scripts/chaos.py --write -->", "<!-- end of counts -->"


def main() -> int:
    """Run the parts that are asked for; print, and with --write keep, the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--kills", type=int, default=100, help="of training [default 100]")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of each part, drawn at random [default 1]")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which a part ends with what it has tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json", help="where results are kept, part by part")
    parser.add_argument("--write", action="store_true", help="put the counts into docs/reliability.md")
    given = parser.parse_args()
    wanted = list(PARTS) if given.only is None else given.only.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"--only {unknown[0]}: unknown")
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(markovlm.__path__, "markovlm."):  # once, and not in every fork
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # an optional dependency
                importlib.import_module(module.name)
    common = Path(tempfile.mkdtemp(prefix="chaos-"))  # a model, and runs that several parts begin with
    place = Place(common, tiny.save_model("llama", common / "model"), given.seed, given.kills, given.share)
    kept = json.loads(given.out.read_text()) if given.out.exists() else {}
    try:
        for name in wanted:
            kept[name] = run_part(name, place, given.minutes)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    finally:
        shutil.rmtree(common, ignore_errors=True)
    if given.write:
        write(kept)
    return int(any(kept[name]["faults"] for name in wanted))


def run_part(name: str, common: Place, minutes: float) -> dict[str, Any]:
    """The cases of a part, as they come; its directory is removed at the end."""
    title, part = PARTS[name]
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-"))
    began, cases, cut = time.monotonic(), list[Case](), False
    place = dataclasses.replace(common, path=folder)
    try:
        for one in part(place):
            cases.append(one)
            if one.fault:
                print(f"  FAULT {one.fault}", flush=True)
            if time.monotonic() - began > 60 * minutes:
                cut = True
                break
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    faults = [one.fault for one in cases if one.fault]
    print(f"{title}: {len(cases)} cases, {len(faults)} faults, {time.monotonic() - began:.0f} s", flush=True)
    return {"cases": len(cases), "share": place.share, "cut": cut, "faults": faults, "names": [one.name for one in cases]}


def write(kept: dict[str, Any]) -> None:
    """The table of docs/reliability.md."""
    rows = ["| what | share | cases | faults |", "|---|---|---|---|"]
    for name, (title, part) in PARTS.items():
        does = " ".join((part.__doc__ or "").split())
        found = kept.get(name)
        counts = (
            f"{found['share']:.0%}{', cut short' if found['cut'] else ''} | {found['cases']:,} | {len(found['faults'])}"
            if found
            else "not run | |"
        )
        rows.append(f"| **{title}.** {does} | {counts} |")
    text = DOCUMENT.read_text(encoding="utf-8")
    written = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: "\n".join([BEGIN, *rows, END]), text, flags=re.DOTALL)
    DOCUMENT.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
