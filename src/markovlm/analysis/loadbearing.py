"""All studies of one run: perturbation, controls, leaks, attribution, and other readers.

One model is in memory at a time: this run's, then its control run's, then each reader's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from markovlm.analysis.attribution import Attribution
from markovlm.analysis.controls import bypass, leak
from markovlm.analysis.explain import MANNER, Manner, explain, explain_one, find_example, write_page, write_resampled
from markovlm.analysis.fragility import RAW, measure_damage, perturb_result, require_twins, twin_name, whole
from markovlm.analysis.intervention import intervene
from markovlm.analysis.own import own_study
from markovlm.analysis.paraphrase import NAME as PARAPHRASE
from markovlm.analysis.paraphrase import Paraphraser, Reworded, reword
from markovlm.analysis.perturb import Plan
from markovlm.analysis.resample import Resampling, resample
from markovlm.analysis.study import Counting, Study, open_study
from markovlm.analysis.transfer import open_readers, transfer
from markovlm.errors import RunFailed, UserError
from markovlm.evaluation.ask import with_some_answer
from markovlm.evaluation.ask_chain import ASKED, ask_thinking
from markovlm.models.load import load_tokenizer
from markovlm.registry import STUDIES
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target
from markovlm.studies.files import FOLDER
from markovlm.tasks.base import Example, Loaded
from markovlm.tasks.choices import asked_example
from markovlm.tasks.prompts import check_example

Part = Literal["perturb", "bypass", "leak", "explain", "transfer", "resample", "intervention"]
PARTS: tuple[Part, ...] = ("perturb", "bypass", "leak", "intervention", "explain", "transfer")  # of `loadbearing`
EXPLAINED = 50  # CoTs of the map of the load, at most


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    target: Target  # the checkpoint under study
    parts: tuple[Part, ...] = PARTS
    against: Target | None = None  # its twin
    checkpoints: tuple[Target, ...] = ()  # whose CoTs go to other readers: the base and those of training
    readers: tuple[str, ...] = ()
    split: str = "test"
    limit: int = 100
    cots: int = 1  # of each question
    plan: Plan = field(default_factory=Plan)
    paraphraser: Paraphraser | None = None  # of the perturbation `paraphrase`; None: rules
    manner: Manner = field(default_factory=Manner)
    resampling: Resampling = field(default_factory=Resampling)
    say: Callable[[str], None] = lambda _: None  # told what long work costs, before it begins
    explained: int = EXPLAINED
    out: Path | None = None  # where results go; None: the run directory

    def folder(self, target: Target) -> Path:
        """Where the results of a target are kept."""
        if self.out is not None:
            return self.out if target is not self.against else self.out / "against"
        if target.run is None:
            raise UserError(f"{target.name}: is not a run of markovlm; name a directory for the results with --out")
        return target.run.path / FOLDER


@dataclass(frozen=True, slots=True)
class Found:
    """Results by part (JSON values), and where they are."""

    results: dict[str, dict[str, Any]]
    paths: tuple[Path, ...]
    attributions: tuple[Attribution, ...] = ()  # the examples of `explain`
    page: Path | None = None  # of `explain`; of a run of chains: of everything
    chains: bool = False  # results are those of `analysis.chains`, all parts in one


def run_studies(request: Request, counting: Counting | None = None) -> Found:
    """Do the parts asked for. Whatever is finished is kept; the same request continues an interrupted one."""
    _check(request)
    if request.target.config.chain.on:
        return _run_chain_studies(request, counting)
    results: dict[str, dict[str, Any]] = {}
    paths: list[Path] = []
    shown: list[Attribution] = []
    page: Path | None = None

    def keep(name: str, found: tuple[dict[str, Any], Path]) -> None:
        results[name] = found[0]
        paths.append(found[1])

    reworded = _paraphrases(request, counting)
    if set(request.parts) - {"transfer"}:
        study = _open(request, request.target, counting)
        if "bypass" in request.parts:
            keep("bypass", bypass(study))
        if "leak" in request.parts:
            keep("leak", leak(study))
        if "intervention" in request.parts:
            keep("intervention", intervene(study))
        if "explain" in request.parts:
            result, shown = explain(replace(study, cots=study.cots[: request.explained]), request.manner)
            keep("explain", (result, study.write("explain", result, {}, MANNER)))
            page = write_page(study, shown, result, request.manner)
        if "resample" in request.parts:
            study = replace(study, cots=study.cots[: request.explained])
            result, resampled = resample(study, study.cots, request.resampling, request.say)
            keep("resample", (result, study.write("resample", result)))
            page = write_resampled(study, result, resampled)
        if request.parts == PARTS:
            for name in STUDIES:
                keep(name, own_study(study, name))
        if "perturb" in request.parts:
            for name, found in _perturb(request, study, counting, reworded).items():
                keep(name, found)
        study.close()
    if "transfer" in request.parts and request.readers:
        how: dict[str, Any] = {"split": request.split, "limit": request.limit, "cots": request.cots, "counting": counting}
        keep("transfer", transfer(request.checkpoints, request.readers, folder=request.folder(request.target), **how))
    return Found(results, tuple(paths), tuple(shown), page)


_NOT_RESAMPLED = "--intervene and --how resample are for CoTs of single questions, and this is a run of chains"
_CHAIN_PARTS: dict[tuple[Part, ...], tuple[str, ...]] = {("perturb",): ("damage",), ("explain",): ("words", "facts")}


def _run_chain_studies(request: Request, counting: Counting | None) -> Found:
    """The studies that chains have: damage and how far it travels, words read and kept, facts that enter, stay and leave."""
    from markovlm.analysis.chains import PARTS as ALL
    from markovlm.analysis.chains import study_chains

    if request.against is not None or request.parts == ("transfer",):
        raise UserError("--against and transfer are not available for a run of chains; markovlm eval measures the controls")
    if {"intervention", "resample"} & set(request.parts) and request.parts != PARTS:
        raise UserError(_NOT_RESAMPLED)
    if STUDIES and request.parts == PARTS:
        request.say(f"left out, because they need CoTs of single questions: {', '.join(STUDIES)}")
    target = request.target
    setup = target.prepare()
    loaded = target.load(setup, request.split, request.limit)
    if not len(loaded.examples):
        raise UserError(f"{target.name}: no texts in the {request.split} split")
    parts = _CHAIN_PARTS.get(request.parts, tuple(ALL))
    result, paths = study_chains(target, setup, loaded, request.split, parts, request.plan, request.folder(target), counting)
    name = request.parts[0] if len(request.parts) == 1 else "chains"
    return Found({name: result}, (paths[0],), page=paths[1], chains=True)


def _explain_chain(request: Request, example: str | None, question: str | Example | None) -> Found:
    """One text of the split by its id, or (kind=thinking) a question of the user's: its words, and when the answer can be read."""
    from markovlm.analysis.chains import study_chains

    if "resample" in request.parts:
        raise UserError(_NOT_RESAMPLED)
    target = request.target
    folder = request.folder(target)
    if question is not None and target.config.chain.kind != "thinking":
        raise UserError(
            "--question: this run reads texts; `markovlm ask RUN QUESTION --text FILE` shows one, --example ID explains one of the split"
        )
    setup = target.prepare()
    if example is not None:
        loaded = Loaded([find_example(target.load(setup, request.split).examples, example)])
    else:
        asked = ask_thinking(setup, with_some_answer(_own_question(setup, question)))
        if not (asked.answer or "").strip():
            raise RunFailed(f"nothing to explain: the model reads no answer from its last piece ({asked.states[-1]!r})")
        own = "the question is your own, so the model's own answer counts as right"
        loaded = Loaded([Example(ASKED, asked.question or "", (asked.answer or "").strip())], notes=(own,))
    result, paths = study_chains(target, setup, loaded, request.split, ("words", "facts"), request.plan, folder, None)
    return Found({"explain": result}, (paths[0],), page=paths[1], chains=True)


def _open(request: Request, target: Target, counting: Counting | None) -> Study:
    return open_study(
        target,
        target.prepare(),
        split=request.split,
        limit=request.limit,
        cots=request.cots,
        folder=request.folder(target),
        counting=counting,
    )


def _paraphrases(request: Request, counting: Counting | None) -> list[Reworded | None]:
    """By another model, of the run's CoTs and of its twin's: the CoTs are drawn first, so that one model is in memory at a time."""
    if request.paraphraser is None or "perturb" not in request.parts:
        return [None, None]
    studies: list[Study] = []
    for target in filter(None, (request.target, request.against)):
        studies.append(_open(request, target, counting))
        studies[-1].close()
    return [*reword(request.paraphraser, studies, counting), None]


def _perturb(
    request: Request, study: Study, counting: Counting | None, reworded: Sequence[Reworded | None]
) -> dict[str, tuple[dict[str, Any], Path]]:
    """Damage to this run's CoTs, then to the twin's, which shows its controls too: results by name, and where they are."""
    damage, twin, name = measure_damage(study, request.plan, reworded[0]), None, "perturb"
    found: dict[str, tuple[dict[str, Any], Path]] = {}
    if request.against is not None:
        study.close()
        other = _open(request, request.against, counting)
        require_twins(study, other)
        twin = measure_damage(other, request.plan, reworded[1])
        if "bypass" in request.parts:
            found["bypass_against"] = bypass(other)
        if "intervention" in request.parts:
            found["intervention_against"] = intervene(other)
        other.close()
        name = f"perturb-vs-{twin_name(other)}"
    result = perturb_result(damage, twin)
    return found | {"perturb": (result, study.write(name, result, {"rows": ("perturbation", "severity", "paraphraser")}))}


def _check(request: Request) -> None:
    """What can be checked before any model is loaded."""
    if request.limit < 1:
        raise UserError(f"--limit {request.limit}: must be at least 1")
    if request.cots < 1:
        raise UserError(f"--cots {request.cots}: must be at least 1")
    ours, against = request.target, request.against
    request.folder(ours)
    if request.paraphraser is not None and ours.config.chain.on:
        raise UserError("--paraphraser: only for CoTs of single questions, and this is a run of chains")
    if request.paraphraser is not None and PARAPHRASE not in request.plan.perturbations:
        raise UserError(f"--paraphraser: needs the perturbation {PARAPHRASE}, which --perturbations leaves out")
    if "transfer" in request.parts:
        open_readers(request.readers, ours.config)
    if against is None:
        return
    try:
        load_tokenizer(against.config.model, against.config.loading)
        request.folder(against)
    except UserError as error:
        raise UserError(
            f"--against {error}" if str(error).startswith(against.name) else f"--against {against.name}: {error}"
        ) from error
    for setting in ("task", "task_options", "data"):
        mine, its = getattr(ours.config, setting), getattr(against.config, setting)
        if mine != its:
            raise UserError(
                f"--against {against.name}: its {setting} is {its}, but that of {ours.name} is {mine}; fragility needs the same questions"
            )
    if _same(ours, against):
        raise UserError(f"--against {against.name}: is the run itself; name its paired control run")


def _same(one: Target, other: Target) -> bool:
    """The same weights under whatever name, read in the same way."""
    if one.config.objective.conditioning != other.config.objective.conditioning:
        return False
    if one.adapter is None and other.adapter is None:
        return one.config.model == other.config.model
    return one.adapter is not None and other.adapter is not None and one.adapter.resolve() == other.adapter.resolve()


def explain_question(request: Request, example: str | None, question: str | Example | None) -> Found:
    """One question, of the split by its id or the user's own: attributions (or the result, where it is resampled) and their page.

    If the user's own question has no gold answer, the model's own answer is explained.
    """
    target = request.target
    if target.config.chain.on:
        return _explain_chain(request, example, question)
    folder = request.folder(target)
    setup = target.prepare()
    own = example is None
    asked = _own_question(setup, question) if own else find_example(target.load(setup, request.split).examples, example)
    known = bool(asked.answer)
    asked = with_some_answer(asked)
    study = open_study(target, setup, split=request.split, limit=None, cots=1, folder=folder, examples=[asked])
    if "resample" in request.parts:
        return _resample_question(request, study, known)
    found = explain_one(study, request.manner, gold_known=known)
    if not found:
        raise RunFailed(f"nothing to explain: the model reads no answer from its CoT ({study.cots[0].text!r})")
    return Found({}, (), tuple(found), write_page(study, found, None, request.manner))


def _own_question(setup: Setup, question: str | Example | None) -> Example:
    own = asked_example(question or "", (), setup.task.answer_type, setup.task.name, identity="question")
    return check_example(setup.lm.tokenizer, own)


def _resample_question(request: Request, study: Study, known: bool) -> Found:
    """Without a gold answer nothing is right or wrong, and occlusion goes towards what the model itself answers."""
    if not known:
        own = study.read([whole(study, study.cots[0], RAW)], "answers")[0]
        answer = (own.extracted or own.answer or "").strip()
        if not answer:
            raise RunFailed(f"nothing to explain: the model reads no answer from its CoT ({study.cots[0].text!r})")
        study.cots = [replace(study.cots[0], example=replace(study.cots[0].example, answer=answer))]
    result, found = resample(study, study.cots, request.resampling, request.say)
    return Found({"resample": result}, (), page=write_resampled(study, result, found))


def default_readers(targets: Sequence[Target], others: Sequence[str]) -> tuple[str, ...]:
    """Models that can always read a run's CoTs: its own base, and the bundled ones for the same task."""
    model = targets[0].config.model
    return (model, *(name for name in others if name != model)) if model in others else (model,)
