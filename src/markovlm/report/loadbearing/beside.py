"""Figures of studies as SVG files beside their results, for who has no report yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markovlm.report.draw import Drawers
from markovlm.report.figures import PRINT_CONFIG, for_print
from markovlm.report.loadbearing.figures import figures
from markovlm.runs.rows import replace_whole
from markovlm.studies.files import read_study


def draw_beside(results: Sequence[Path]) -> list[Path]:
    """The figures of each result file, `NAME-drop.svg` and the like beside it. Raises DrawingFailed where Vega refuses one."""
    problems: list[str] = []
    drawn: list[Path] = []
    with Drawers() as drawers:
        asked = [
            (path.with_name(f"{figure.name}.svg"), drawers.svg(for_print(figure, ()), PRINT_CONFIG))
            for path in results
            for study in [read_study(path, problems)]
            if study is not None
            for figure in figures(path.stem, f"{study.task}, {study.checkpoint}", study)
        ]
        for path, svg in asked:
            replace_whole(path, svg.result().encode())
            drawn.append(path)
    return drawn
