"""Train language models whose chain of thought carries the whole answer, measure that it does, and explain every run.

    import markovlm

    run = markovlm.train({"model": "embedded"}, "runs/first", training__steps=50)
    markovlm.evaluate("runs/first", baseline=True).report      # accuracy from the CoT alone, with intervals
    model = markovlm.load("runs/first")
    thoughts = model.sample(["17+4+79"], n=4)[0]               # CoTs
    model.read(thoughts, ["100"] * 4)  # the answer read from each of them alone

Names are imported at first use, so that `import markovlm` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from markovlm._version import __version__ as __version__

if TYPE_CHECKING:
    from markovlm import register
    from markovlm.api.auditing import audit
    from markovlm.api.checking import check
    from markovlm.api.evaluation import Evaluated, evaluate
    from markovlm.api.judging import diagnose, write_report
    from markovlm.api.models import Model, Reading, Thought, load
    from markovlm.api.results import Diagnoses, StudyResult
    from markovlm.api.studies import explain, loadbearing, perturb, transfer
    from markovlm.api.training import configure, train
    from markovlm.config.base import Section as Options
    from markovlm.config.objective import ObjectiveBase as ObjectiveConfig
    from markovlm.config.run import RunConfig
    from markovlm.errors import MarkovlmError, RunFailed, StopVerdict, UserError
    from markovlm.integrations.watch import Watcher
    from markovlm.logs.records import RunData
    from markovlm.objectives.base import Credit, PolicyBatch, PolicyGradient, PolicyLoss
    from markovlm.rewards.base import Answers, Reward
    from markovlm.rollouts.foreign import ForeignSampler
    from markovlm.rollouts.types import Sampler, SamplerPlace
    from markovlm.runs.manifest import accept_damaged
    from markovlm.tasks.base import Example, Task
    from markovlm.tasks.chain import ChainExample, Query, chain_example

_PLACES = {
    # do
    "load": "api.models",
    "train": "api.training",
    "configure": "api.training",
    "evaluate": "api.evaluation",
    "perturb": "api.studies",
    "transfer": "api.studies",
    "explain": "api.studies",
    "loadbearing": "api.studies",
    "audit": "api.auditing",
    "diagnose": "api.judging",
    "check": "api.checking",
    "write_report": "api.judging",
    "Watcher": "integrations.watch",
    "accept_damaged": "runs.manifest",
    # what they give and take
    "Model": "api.models",
    "Thought": "api.models",
    "Reading": "api.models",
    "Evaluated": "api.evaluation",
    "StudyResult": "api.results",
    "Diagnoses": "api.results",
    "RunConfig": "config.run",
    "Example": "tasks.base",
    "MarkovlmError": "errors",
    "UserError": "errors",
    "RunFailed": "errors",
    "StopVerdict": "errors",
    # to add things of one's own
    "register": "register",
    "Options": "config.base:Section",
    "ObjectiveConfig": "config.objective:ObjectiveBase",
    "PolicyGradient": "objectives.base",
    "Credit": "objectives.base",
    "PolicyBatch": "objectives.base",
    "PolicyLoss": "objectives.base",
    "Reward": "rewards.base",
    "Answers": "rewards.base",
    "Task": "tasks.base",
    "Sampler": "rollouts.types",
    "SamplerPlace": "rollouts.types",
    "ForeignSampler": "rollouts.foreign",
    "RunData": "logs.records",
    "ChainExample": "tasks.chain",
    "Query": "tasks.chain",
    "chain_example": "tasks.chain",
}

__all__ = [
    "Answers",
    "ChainExample",
    "Credit",
    "Diagnoses",
    "Evaluated",
    "Example",
    "ForeignSampler",
    "MarkovlmError",
    "Model",
    "ObjectiveConfig",
    "Options",
    "PolicyBatch",
    "PolicyGradient",
    "PolicyLoss",
    "Query",
    "Reading",
    "Reward",
    "RunConfig",
    "RunData",
    "RunFailed",
    "Sampler",
    "SamplerPlace",
    "StopVerdict",
    "StudyResult",
    "Task",
    "Thought",
    "UserError",
    "Watcher",
    "accept_damaged",
    "audit",
    "chain_example",
    "check",
    "configure",
    "diagnose",
    "evaluate",
    "explain",
    "load",
    "loadbearing",
    "perturb",
    "register",
    "train",
    "transfer",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'markovlm' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = importlib.import_module(f"markovlm.{module}")
    value = found if name == "register" else getattr(found, attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
