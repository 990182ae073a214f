"""Auditing CoTs that somebody else wrote: `markovlm audit` and `markovlm.audit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.api.arguments import PATH, listed, mapping, require_count
from markovlm.api.results import StudyResult
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
    columns: Mapping[str, str] | Sequence[str] | None = None,
    groups: Mapping[str, str | Path | Sequence[str | Path]] | Sequence[str] | None = None,
    judge: str | None = None,
    minutes: float | None = None,
) -> AuditRequest:
    """Check an audit's arguments, read its files and open its readers; loads no model. Raises UserError in one line."""
    from markovlm.analysis.perturb import Plan

    _check_ahead(listed("files", files, PATH, "paths"), listed("--readers", readers, str, "models"), limit)
    from markovlm.auditing.columns import parse_columns
    from markovlm.auditing.groups import parse_groups
    from markovlm.auditing.hints import has_hints
    from markovlm.auditing.plan import DAMAGE, DAMAGE_SEVERITIES, PARTS, AuditRequest, gather, open_audience, open_one
    from markovlm.auditing.result import default_out
    from markovlm.auditing.sources import read_source

    named = parse_groups(_pairs(groups))
    files = [*listed("files", files, PATH, "paths"), *named]
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
    paths = list(dict.fromkeys(Path(file).expanduser() for file in files))
    place = Path(out) if out is not None else default_out(paths)
    if place.is_file():
        raise UserError(f"--out {place}: is a file; name a directory")
    fields = parse_columns(
        [f"{name}={column}" for name, column in columns.items()] if isinstance(columns, Mapping) else columns or ()
    )
    material = gather(paths, [read_source(path, fields) for path in paths], task, limit, named)
    over = mapping(config)
    if minutes is not None and not (isinstance(minutes, Real) and 0 < float(minutes) < math.inf):
        raise UserError(f"--budget {minutes}: must be a number of minutes above 0")
    hints = has_hints(material)
    if not hints and ((wanted is not None and "hints" in wanted) or judge is not None):
        raise UserError(
            f"{paths[0]}: no row has both a hint and the answer without it; if they have other names, use --columns hint=…,answer_without_hint=…"
        )
    audience = open_audience(readers, material, over, needed=not (hints and wanted == ["hints"]))
    judging = None if judge is None else (judge, open_one(judge, material, over, "--judge"))
    parts = tuple(name for name in PARTS if wanted is None or name in wanted)
    seed = int(over.get("seed") or 0)
    return AuditRequest(tuple(paths), material, audience, place, parts, plan, most_sentences, seed, judging, minutes)


def _check_ahead(files: Sequence[str | Path], readers: Sequence[str], limit: int | None) -> None:
    """What is plainly wrong, before torch is imported, which takes seconds."""
    from markovlm.models.registry import check_path

    if limit is not None:
        require_count("--limit", limit)
    for file in files:
        if not Path(file).expanduser().exists():
            raise UserError(f"{file}: no such file or directory")
    for reader in readers:
        if "://" not in reader and not Path(reader).expanduser().exists():
            try:
                check_path(reader)
            except UserError as error:
                raise UserError(f"--reader {reader}: {error}") from error


def _pairs(groups: Mapping[str, str | Path | Sequence[str | Path]] | Sequence[str] | None) -> list[str]:
    """`NAME=FILE` of a mapping from names to files."""
    if not isinstance(groups, Mapping):
        return list(groups or ())
    return [f"{name}={file}" for name, some in groups.items() for file in ([some] if isinstance(some, str | Path) else some)]


def run_audit(
    request: AuditRequest, *, counting: Counting | None = None, say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], Path]:
    """Run the audit: return its result and the page. The same call after an interruption continues."""
    from markovlm.auditing.page import write_page
    from markovlm.auditing.result import audit as work

    result, reads, carried_out = work(request, counting, say)
    return result, write_page(carried_out, result, reads)


def preview(request: AuditRequest) -> dict[str, Any]:
    """What is in the files, and about how many tokens each reader would compute. Loads tokenizers, no models."""
    from markovlm.auditing.preview import preview as look

    return look(request)


def audit(
    files: str | Path | Sequence[str | Path], readers: str | Sequence[str] = (), *, counting: Counting | None = None, **how: Any
) -> StudyResult:
    """How well answers follow from CoTs of any source, as `markovlm audit --json` prints it.

    `how`: task, only, perturbations, severities, most_sentences, limit, out, config, `columns` ({"question": "problem", …}: names of
    the columns in the files), `groups` ({"brief": "a.eval", …}: names for files), `judge` (a model that decides whether CoTs admit that
    they use their hints) and `minutes` (how long reading may take). Results are written beside the (first) file, or to `out`. Raises
    UserError for a file that holds no CoTs and for a reader that does not exist.
    """
    named = [files] if isinstance(files, str | Path) else files
    request = audit_request(named, [readers] if isinstance(readers, str) else readers, **how)
    return StudyResult(run_audit(request, counting=counting)[0])
