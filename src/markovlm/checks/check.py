"""From a configuration file to the findings about its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.checks import ours, trl, verl
from markovlm.checks.finding import Checked, CheckFinding, worst_first
from markovlm.checks.lengths import limit_against, reference_lengths
from markovlm.checks.plan import TrainingPlan
from markovlm.checks.reading import GivenSettings, read_settings
from markovlm.config import RunConfig, build_config
from markovlm.config.shipped import find_config
from markovlm.errors import UserError
from markovlm.logs.frameworks import NAMED
from markovlm.models.registry import defaults_under
from markovlm.plugins import is_loaded
from markovlm.runs.asking import task_of

OURS = "markovlm"
FRAMEWORKS = ("trl", "verl", OURS)
_VERL = ("actor_rollout_ref.", "algorithm.adv_estimator", "algorithm.kl_ctrl")
_OUR_SECTIONS = frozenset(RunConfig.model_fields)


@dataclass(frozen=True, slots=True)
class CheckAnswers:
    """Reference answers that the limit on completions is compared with."""

    path: Path
    column: str | None = None


def check_file(
    path: Path, framework: str | None = None, processes: int | None = None, answers: CheckAnswers | None = None
) -> Checked:
    """The findings about one configuration. Raises UserError for a file that cannot be read, or of no known framework."""
    path = find_config(path)
    settings = read_settings(path)
    named = framework or framework_of(settings)
    if named is None:
        raise UserError(
            f"{path}: its {len(settings.values):,} settings fit neither TRL's GRPO nor verl nor markovlm; "
            f"name the framework with --framework {'|'.join(FRAMEWORKS)}"
        )
    if named not in FRAMEWORKS:
        raise UserError(f"--framework {named}: must be one of {', '.join(FRAMEWORKS)}")
    lengths = None if answers is None else reference_lengths(answers.path, answers.column)
    if named == OURS:
        return _check_ours(path, settings, lengths)
    module, record = (trl, NAMED["TRL"]) if named == "trl" else (verl, NAMED["verl"])
    if named == "trl" and processes is None:
        given = settings.values.get("num_processes")
        processes = given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else None
    plan = TrainingPlan(record, settings.values, module.DEFAULTS, frozenset(settings.unread), processes)
    found = list(module.findings(plan))
    if lengths is not None and (
        longer := limit_against(lengths, plan.number(module.LIMIT), plan.says(module.LIMIT), module.LIMIT)
    ):
        found = [longer, *(finding for finding in found if finding.name != "default_limit")]
    unread = tuple(name for name in settings.unread if name in module.DEFAULTS or name == "**")
    return Checked(str(path), record.name, len(settings.values), worst_first(found), unread)


def framework_of(settings: GivenSettings) -> str | None:
    """The framework of these settings, recognised by names that only it has."""
    names = [*settings.values, *settings.unread]
    if any(name.startswith(_VERL) for name in names):
        return "verl"
    if trl.OWN & {name.partition(".")[0] for name in names}:
        return "trl"
    sections = {name.partition(".")[0] for name in names}
    return OURS if settings.nested and sections <= _OUR_SECTIONS and sections - {"model", "seed"} else None


def _check_ours(path: Path, settings: GivenSettings, lengths: list[int] | None) -> Checked:
    layer: Mapping[str, Any] = settings.nested
    if not layer:
        raise UserError(f"{path}: a configuration of markovlm must be a YAML file")
    for plugin in layer.get("plugins") or ():
        if not is_loaded(str(plugin)):
            raise UserError(f"{path}: needs the plug-in {plugin}; it is Python code, so load it yourself with --plugin {plugin}")
    try:
        config = build_config(defaults_under(layer), layer, source=str(path))
        found = list(ours.findings(config))
        limit = config.rollouts.max_cot_tokens or task_of(config).default_cot_tokens
    except UserError as error:
        what = str(error).removeprefix(f"{path}: ")
        refused = CheckFinding("refused", "fails", what, "what the message says", "docs/configuration.md")
        return Checked(str(path), OURS, len(settings.values), (refused,))
    name = "chain.state_tokens" if config.chain.on else "rollouts.max_cot_tokens"
    if lengths is not None and not config.chain.on and (longer := limit_against(lengths, limit, f"{name}={limit}", name)):
        found.insert(0, longer)
    return Checked(str(path), OURS, len(settings.values), worst_first(found))
