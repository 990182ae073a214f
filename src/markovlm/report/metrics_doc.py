"""`docs/metrics.md`, written from the tables of the code: `python -m markovlm.report.metrics_doc > docs/metrics.md`."""

from __future__ import annotations

from collections.abc import Sequence

from markovlm.logs.schema import FLAT, FOREIGN_CONFIG, GENERATIONS, METRICS, foreign_keys
from markovlm.report.markdown import table
from markovlm.report.tables import Table, plain, rules, thresholds

_DERIVED = {
    "active": "`no_gradient_fraction` (one minus the fraction)",
    "weighted_kl": "`kl` (where KL Type says weighted: divided by `kl_penalty` of the header, missing without it)",
}
_HEAD = """\
# Metrics

Written by `python -m markovlm.report.metrics_doc` from the tables in `logs/schema.py`, `report/rules/` and
`health/`.

A row of `metrics.jsonl` is one step: flat, stable keys, numbers or null. Any key may be missing. Keys that end in `_seconds`,
`_per_second` or `_memory` hold time or memory; every other value is the same in a repeated run on one machine.
"""
_FOREIGN = """\
## Logs of the research code

Every generation is told apart by what its records contain, and its keys become ours. What a log does not have stays
missing. Steps are the log's own batch numbers (from 0); where these are missing or constant, rows are counted from 0; where a
batch number is repeated, the later row counts. Values that are text (`"NaN (no active examples)"`) are left missing and reported;
`Infinity` is kept, so that the verdict sees it. Flat logs (g1 to g2) hold one sample a batch. Repetition
(`distinct_bigram_fraction`, `longest_char_run`, `compression_ratio`) is measured here, on at most 500 CoTs of a log.
"""
_RESULTS = """\
### Evaluations

`<task>_results_<model>.jsonl` beside a `log.jsonl` belong to its run: `accuracy` is the extractor `reported`,
`accuracy_<name>` the extractor `<name>`, `batch_index` the step, `total_examples` n; intervals are computed (Wilson).
A stand-alone `{"accuracy", "results"}` file is read as a run with one evaluation.
"""


def _lines(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table of texts that are already Markdown."""
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([f"### {title}\n", *head, *("| " + " | ".join(row) + " |" for row in rows)])


def _schema() -> str:
    found = tuple((plain(m.key), plain(m.unit), plain(m.meaning)) for m in METRICS)
    return table(Table("metrics", "Metrics", ("key", "unit", "meaning"), found))


def _keys(title: str, kind: str) -> str:
    rows = [
        (" or ".join(f"`{key}`" for key in theirs), _DERIVED.get(ours, f"`{ours}`"))
        for ours, theirs in foreign_keys(kind).items()
    ]
    return _lines(title, ("key in the log", "our key"), rows)


def render() -> str:
    """The page."""
    generations = _lines("Generations", ("kind", "told by"), [(f"`{k}`", v) for k, v in GENERATIONS.items()])
    settings = _lines(
        "Hyperparameters of the header", ("in the log", "ours"), [(f"`{k}`", f"`{v}`") for k, v in FOREIGN_CONFIG.items()]
    )
    parts = [
        _HEAD,
        _schema(),
        _FOREIGN,
        generations,
        _keys(f"Flat logs ({', '.join(FLAT)})", "g1"),
        _keys("Nested logs (g2, g3, g4)", "g4"),
        settings + "\n\nOther hyperparameters keep their names.",
        _RESULTS,
        "## The verdict\n\n" + table(thresholds()),
        "## Hindsight\n\n" + table(rules()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    print(render(), end="")
