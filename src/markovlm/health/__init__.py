"""Is this run healthy? Pure functions over metric rows, the same for a live run and for an old log.

`thresholds` is the table of alarms, `course` and `alarm` keep state, `monitor` judges rows, `verdict` is what comes out; `rules` are what hindsight
sees, `diagnose` puts both together: verdict, cause and advice.
"""

from markovlm.health.monitor import WATCHED, HealthMonitor, judge
from markovlm.health.rules import RULES, THRESHOLDS
from markovlm.health.thresholds import Threshold
from markovlm.health.verdict import Evidence, Verdict, VerdictName
from markovlm.texts.repetition import text_signals

__all__ = [
    "KINDS",
    "RULES",
    "THRESHOLDS",
    "WATCHED",
    "Evidence",
    "HealthMonitor",
    "Threshold",
    "Verdict",
    "VerdictName",
    "judge",
    "text_signals",
]

KINDS = {
    rule.name: rule.sentence for rule in RULES if rule.live or rule.name == "evaluation_fell"
}  # what live evidence can be of
