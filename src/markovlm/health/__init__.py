"""Is this run healthy? Pure functions over metric rows, the same for a live run and for an old log.

`text` shows repetition, `thresholds` is the table of alarms, `course` and `alarm` keep state, `monitor` judges, `verdict` is what
comes out.
"""

from markovlm.health.monitor import WATCHED, HealthMonitor, judge, thresholds_table
from markovlm.health.text import text_signals
from markovlm.health.thresholds import KINDS, THRESHOLDS, Threshold
from markovlm.health.verdict import Evidence, Verdict, VerdictName

__all__ = [
    "KINDS",
    "THRESHOLDS",
    "WATCHED",
    "Evidence",
    "HealthMonitor",
    "Threshold",
    "Verdict",
    "VerdictName",
    "judge",
    "text_signals",
    "thresholds_table",
]
