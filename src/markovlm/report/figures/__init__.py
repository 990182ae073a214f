"""Figures: one Vega-Lite specification each, for the interactive page and for SVG.

A specification refers to its rows by name (`data: {"name": …}`), to runs by `@names`, `@colours` and `@dashes`, and to the
ends of its axes by parameters: the page fills them in the browser, `for_print` fills them for an SVG. Runs differ in colour
and in dash, so that grey paper keeps them apart.
"""

from markovlm.report.figures.accuracy import final_accuracy
from markovlm.report.figures.base import COLOURS, MOST_SHOWN, Figure, blank, first_shown, run_domain
from markovlm.report.figures.charts import CHARTS, Chart
from markovlm.report.figures.curves import PAGE_POINTS, PRINT_POINTS, accuracy_curve, curves
from markovlm.report.figures.printing import PRINT_CONFIG, for_print
from markovlm.report.figures.rewards import reward_distributions
from markovlm.report.figures.thin import calm, decimate

__all__ = [
    "CHARTS",
    "COLOURS",
    "MOST_SHOWN",
    "PAGE_POINTS",
    "PRINT_CONFIG",
    "PRINT_POINTS",
    "Chart",
    "Figure",
    "accuracy_curve",
    "blank",
    "calm",
    "curves",
    "decimate",
    "final_accuracy",
    "first_shown",
    "for_print",
    "reward_distributions",
    "run_domain",
]
