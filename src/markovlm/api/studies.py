"""Is the reasoning load-bearing? Perturbation, other readers, attribution: the studies of a run's CoTs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.api.arguments import listed, mapping, require_count, require_text
from markovlm.api.results import StudyResult
from markovlm.errors import UserError
from markovlm.models.registry import check_path, model_defaults, peers
from markovlm.runs.store import default_store

if TYPE_CHECKING:
    from markovlm.analysis.explain import Manner
    from markovlm.analysis.loadbearing import Found, Part, Request
    from markovlm.analysis.perturb import Plan
    from markovlm.analysis.resample import Resampling
    from markovlm.analysis.study import Counting
    from markovlm.runs.targets import Target
    from markovlm.tasks.base import Example


def study_request(
    target: str | Path,
    parts: Sequence[Part],
    *,
    against: str | Path | None = None,
    plan: Plan | None = None,
    paraphraser: str | Path | None = None,
    paraphrase_temperature: float = 0.0,
    manner: Manner | None = None,
    resampling: Resampling | None = None,
    say: Callable[[str], None] | None = None,
    readers: Sequence[str] = (),
    checkpoint: str | int = "last",
    checkpoints: str = "all",
    split: str | None = None,
    limit: int = 100,
    cots: int = 1,
    non_markovian: bool = False,
    out: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> Request:
    """Check what the studies are asked for and open everything named; loads no model. Raises UserError in one line."""
    from markovlm.runs.ahead import check_ahead
    from markovlm.runs.targets import open_targets, sighted

    for flag, value in (("--limit", limit), ("--cots", cots)):
        require_count(flag, value)
    require_text("--checkpoints", checkpoints, "'all' or '100,200'")
    readers = listed("--readers", readers, str, "models")
    over, name = mapping(config), str(target)
    studied = open_targets(name, str(checkpoint), over)[0]
    if studied.run is None and "task" not in over and "task" not in model_defaults(studied.config.model):
        raise UserError(f"--task: {name} is not a run of markovlm, so a task is needed")
    split = split or studied.config.data.test_split
    check_ahead(studied.config, split)
    twin = _twin(str(against), str(checkpoint), over) if against is not None else None
    transferred = tuple(_with_base(name, checkpoints, over)) if "transfer" in parts else ()
    for reader in readers:
        _check_there("--readers", reader)
    if paraphraser is not None:
        _check_there("--paraphraser", str(paraphraser))
    from markovlm.analysis.loadbearing import EXPLAINED, Request, default_readers
    from markovlm.analysis.paraphrase import open_paraphraser

    if non_markovian:
        studied, twin, transferred = sighted(studied), twin and sighted(twin), tuple(map(sighted, transferred))
    if transferred and not readers:
        readers = default_readers(transferred, peers(transferred[0].config.model))
    store = default_store(name, studied.config.task) / "loadbearing" if studied.run is None else None
    more: dict[str, Any] = {"plan": plan, "resampling": resampling, "say": say}
    if paraphraser is not None:
        more["paraphraser"] = open_paraphraser(str(paraphraser), paraphrase_temperature, studied)
    more = {name: value for name, value in more.items() if value is not None}
    return Request(
        studied,
        tuple(parts),
        twin,
        transferred,
        tuple(dict.fromkeys(readers)),
        split,
        limit,
        cots,
        explained=limit * cots if tuple(parts) in (("explain",), ("resample",)) else EXPLAINED,
        out=Path(out) if out is not None else store,
        **({"manner": manner} if manner is not None else {}),
        **more,
    )


def _check_there(flag: str, model: str) -> None:
    """Raises UserError for a path where nothing is."""
    try:
        if not Path(model).expanduser().exists():
            check_path(model)
    except UserError as error:
        raise UserError(f"{flag} {model}: {error}") from error


def _twin(name: str, checkpoint: str, over: dict[str, Any]) -> Target:
    from markovlm.runs.targets import open_targets

    try:
        return open_targets(name, checkpoint, over)[0]
    except UserError as error:
        raise UserError(f"--against {name}: {error}") from error


def _with_base(run: str, checkpoints: str, over: dict[str, Any]) -> list[Target]:
    """Checkpoints of a run and its base; step 0, whose adapter does nothing yet, is the base once more and left out."""
    from markovlm.runs.targets import open_targets

    found = open_targets(run, f"{checkpoints},base", over)
    if found[0].run is None and found[0].foreign is None:
        raise UserError(f"{run}: transfer compares the checkpoints of a run, and this is a plain model")
    return [target for target in found if target.step != 0]


def study(request: Request, counting: Counting | None = None) -> Found:
    """Run the studies that are asked for. Whatever is finished is kept, and the same request continues."""
    from markovlm.analysis.loadbearing import run_studies

    return run_studies(request, counting)


def perturb(
    target: str | Path,
    *,
    against: str | Path | None = None,
    perturbations: Sequence[str] | None = None,
    severities: Sequence[float] | None = None,
    paraphraser: str | Path | None = None,
    counting: Counting | None = None,
    **how: Any,
) -> StudyResult:
    """How much perturbing the CoT changes the answer; with `against`, how much more than in a paired control run (fragility).

    `paraphraser`: a model that writes the paraphrases, instead of rules. `how`: checkpoint, split, limit, cots, non_markovian, out,
    config, paraphrase_temperature. The result is what `markovlm perturb --json` prints.
    """
    from markovlm.analysis.perturb import Plan

    names = {"perturbations": tuple(listed("--perturbations", perturbations, str, "names"))} if perturbations is not None else {}
    graded = None if severities is None else tuple(listed("--severities", severities, Real, "numbers"))
    plan = Plan(**names, severities=graded)
    request = study_request(target, ("perturb",), against=against, plan=plan, paraphraser=paraphraser, **how)
    return StudyResult(study(request, counting).results["perturb"])


def transfer(target: str | Path, readers: Sequence[str], *, counting: Counting | None = None, **how: Any) -> StudyResult:
    """Whether other models understand the CoTs, over training. The result is what `markovlm transfer --json` prints."""
    return StudyResult(study(study_request(target, ("transfer",), readers=readers, **how), counting).results["transfer"])


def explain(
    target: str | Path,
    question: str | Example | None = None,
    *,
    by: str = "token",
    replace: bool = False,
    resample: int | None = None,
    counting: Counting | None = None,
    **how: Any,
) -> Any:
    """Which tokens, words or sentences are load-bearing: in one question's CoT (a list of Attribution), or over many (a dict).

    For chains the result is a dict. A question of a multiple-choice task lists its choices as `A. …`, or is an Example with choices.
    `resample`: draw that many continuations from before each sentence instead and follow the answer (a dict; `analysis.resample`).
    """
    from markovlm.analysis.explain import Manner
    from markovlm.analysis.loadbearing import explain_question
    from markovlm.analysis.resample import Resampling

    if resample is not None:
        request = study_request(target, ("resample",), resampling=Resampling(resample), **{"limit": 10, **how})
        found = study(request, counting) if question is None else explain_question(request, None, question)
        return found.results["resample"]

    manner: Any = Manner(by, "replace" if replace else "remove")  # pyright: ignore[reportArgumentType]
    request = study_request(target, ("explain",), manner=manner, **{"limit": 50, **how})
    if question is None:
        return StudyResult(study(request, counting).results["explain"])
    found = explain_question(request, None, question)
    return found.results["explain"] if found.chains else list(found.attributions)


def loadbearing(
    target: str | Path, *, against: str | Path | None = None, counting: Counting | None = None, **how: Any
) -> StudyResult:
    """All studies of a run in one go: study -> result, as `markovlm loadbearing --json` prints them."""
    from markovlm.analysis.loadbearing import PARTS

    found = study(study_request(target, PARTS, against=against, **how), counting).results
    return StudyResult({part: StudyResult(result) if isinstance(result, dict) else result for part, result in found.items()})
