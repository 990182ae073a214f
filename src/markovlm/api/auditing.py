"""Auditing CoTs that somebody else wrote: `markovlm audit` and `markovlm.audit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.api.arguments import PATH, listed, mapping, require_count
from markovlm.errors import UserError

if TYPE_CHECKING:
    from markovlm.analysis.study import Counting
    from markovlm.auditing.plan import AuditRequest


def audit_request(
    files: Sequence[str | Path],
    readers: Sequence[str],
    *,
    task: str | None = None,
    only: Sequence[str] | None = None,
    perturbations: Sequence[str] | None = None,
    severities: Sequence[float] | None = None,
    most_sentences: int = 40,
    limit: int | None = None,
    out: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> AuditRequest:
    """The files read, the readers opened, nothing loaded. Raises UserError in one line."""
    from markovlm.analysis.fragility import Plan
    from markovlm.auditing.plan import DAMAGE, DAMAGE_SEVERITIES, PARTS, AuditRequest, gather, open_audience
    from markovlm.auditing.result import default_out
    from markovlm.auditing.sources import read_source

    files = listed("files", files, PATH, "paths")
    if not files:
        raise UserError("files: nothing to audit; name a file of CoTs")
    readers = listed("--readers", readers, str, "models")
    wanted = None if only is None else listed("--only", only, str, "parts")
    unknown = [name for name in wanted or () if name not in PARTS]
    if unknown:
        raise UserError(f"--only {unknown[0]}: unknown; known are {', '.join(PARTS)}")
    for flag, value in (("--limit", limit), ("--sentences", most_sentences)):
        if value is not None:
            require_count(flag, value)
    names = listed("--perturbations", perturbations or DAMAGE, str, "names")
    plan = Plan(tuple(names), tuple(listed("--severities", severities or DAMAGE_SEVERITIES, Real, "numbers")))
    paths = [Path(file).expanduser() for file in files]
    place = Path(out) if out is not None else default_out(paths)
    if place.is_file():
        raise UserError(f"--out {place}: is a file; name a directory")
    material = gather(paths, [read_source(path) for path in paths], task, limit)
    over = mapping(config)
    audience = open_audience(readers, material, over)
    parts = tuple(name for name in PARTS if wanted is None or name in wanted)
    return AuditRequest(tuple(paths), material, audience, place, parts, plan, most_sentences, int(over.get("seed") or 0))


def run_audit(
    request: AuditRequest, *, counting: Counting | None = None, say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], Path]:
    """Read, put together, written: the result and its page. Given again after an interruption, it goes on."""
    from markovlm.auditing.page import write_page
    from markovlm.auditing.result import audit as work

    result, reads = work(request, counting, say)
    return result, write_page(request, result, reads)


def preview(request: AuditRequest) -> dict[str, Any]:
    """What is in the files and about how many tokens each reader would compute; tokenizers are loaded, models are not."""
    from markovlm.auditing.preview import preview as look

    return look(request)


def audit(
    files: str | Path | Sequence[str | Path], readers: str | Sequence[str], *, counting: Counting | None = None, **how: Any
) -> dict[str, Any]:
    """How well answers follow from CoTs of any source, as `markovlm audit --json` prints it.

    `how`: task, only, perturbations, severities, most_sentences, limit, out, config. Results are written beside the (first) file, or to
    `out`. Raises UserError for a file that holds no CoTs and for a reader that is not there.
    """
    named = [files] if isinstance(files, str | Path) else files
    request = audit_request(named, [readers] if isinstance(readers, str) else readers, **how)
    return run_audit(request, counting=counting)[0]
