"""`docs/metrics.md`, written from the tables of the code: `python -m markovlm.report.metrics_doc > docs/metrics.md`."""

from __future__ import annotations

from collections.abc import Sequence

from markovlm.logs.frameworks import FRAMEWORKS, OURS, Framework
from markovlm.logs.schema import METRIC, METRICS
from markovlm.present.markdown import table
from markovlm.present.table import table_of
from markovlm.report.tables import rules, thresholds
from markovlm.research_logs.keys import FLAT, GENERATIONS, SETTINGS, keys_of

_DERIVED = {
    "active": "`no_gradient_fraction` (one minus the fraction)",
    "weighted_kl": "`kl` (where KL Type says weighted: divided by `kl_penalty` of the header, missing without it)",
}
_HEAD = """\
# Metrics

Written by `python -m markovlm.report.metrics_doc` from the tables in `logs/schema.py`, `logs/frameworks/` and
`health/`.

A row of `metrics.jsonl` is one step: flat, stable keys, numbers or null. Any key may be missing. Keys that end in `_seconds`,
`_per_second` or `_memory` hold time or memory; every other value is the same in a repeated run on one machine.
"""
_FOREIGN = """\
## Logs of the research code

Each generation is recognised by what its records contain, and its keys become ours. What a log does not have stays
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


_OTHERS = """\
## Logs of other frameworks

Recognised by content: `trainer_state.json` and output directories of the Hugging Face Trainer (of several checkpoints the newest), what trainers
print (also to SLURM's `.out` and `.err`; progress bars and carriage returns are passed over), JSONL, CSV and Parquet with a step column,
TensorBoard event files (needs the package tensorboard), Weights & Biases offline runs (`run-ID.wandb`) and CSV exports (of several runs, each),
trackio and MLflow databases (`FILE.db::RUN` and `FILE.csv::RUN` name one run of several) and MLflow's folders. gzip is unpacked. A tracker's
`train/` in front of a key is dropped. Keys that are not in the tables below are passed over; what a log does not have stays missing.

**Launches.** A log whose steps begin anew holds several launches: each is a run and judged as one (`FILE::launch-2` names one). An event file is
a launch unless its first step lies beyond one logging interval: then it goes on from the file before. Steps that go back to somewhere in between
are a resumed run: later rows replace what was logged from there on. A step that counts within its epoch goes on over epochs.

**Rows.** They may be means over several steps (`logging_steps`). Rows of one step that several processes or micro-batches log are one row, their
mean. Printed rows without a step are counted, and the progress bar says how many steps a row stands for. Numbers may be text, `nan`, `inf` and
`np.float64(0.5)`; nothing is evaluated or unpickled. A last line that is cut is left out. Printed dictionaries with rewards but without a loss,
gradient or step are samples, not rows; numbers in a dictionary inside a row are no metrics, but for a total and a count (`{"total_reward": 12,
"total_num": 16}`), of which the mean is taken. Where a log has no dictionaries of metrics, lines such as `step 12 | reward=0.5 | kl=0.01` and
blocks of `• Avg Reward: 0.5` below a step are read. A traceback or a scheduler's last word after the last row is the error that ended the run.
Of more than 200,000 rows every second, fourth, … is kept.

**Which training.** A log without a sampled reward is a `supervised` or `preference` run: named so, not judged. Logs that agree on every common
step are one training, and the fullest counts. Completion tables beside a log (TRL's `completions/*.parquet`, verl's rollouts `STEP.jsonl` in
`rollout/`) are its samples.

**Names of no framework.** Home-made loops call things `mean_reward`, `reward/mean`, `kl_div`: such keys are read word by word. Where no column
is a known reward, the option that would name it is printed: `--map reward=train/score --map step=update --map length=tokens/mean`, or `--map
names.yaml` with lines `OURS: THEIRS` (`reward/NAME` is a component; a list of names takes the first that a row has).
"""


def _framework(dialect: Framework) -> str:
    """One framework's keys, and what it means by those that differ between frameworks."""
    rows = [(" or ".join(f"`{key}`" for key in theirs), _said(ours)) for ours, theirs in dialect.keys.items()]
    rows += [(f"`{pattern}`".replace("|", "\\|"), f"`{ours}…`") for pattern, ours in dialect.patterns]
    parts = [_lines(dialect.name, ("key in the log", "our key"), rows)]
    if dialect.notes:
        parts.append("\n".join(f"- `{ours}`: {what}" for ours, what in dialect.notes.items()))
    if dialect.sources:
        parts.append("Source: " + ", ".join(f"<{source}>" for source in dialect.sources))
    return "\n\n".join(parts)


def _said(ours: str) -> str:
    if ours == "groups_mixed":
        return "with both others: shares of the groups, and `groups_without_spread`"
    unit = METRIC[ours].unit if ours in METRIC else ""
    return f"`{ours}`" + (f", {unit}" if unit else "")


def _lines(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table of texts that are already Markdown."""
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([f"### {title}\n", *head, *("| " + " | ".join(row) + " |" for row in rows)])


def _schema() -> str:
    return table(table_of("metrics", "Metrics", METRICS, {"key": "key", "unit": "unit", "meaning": "meaning"}))


def _keys(title: str, kind: str) -> str:
    rows = [
        (" or ".join(f"`{key}`" for key in theirs), _DERIVED.get(ours, f"`{ours}`")) for ours, theirs in keys_of(kind).items()
    ]
    return _lines(title, ("key in the log", "our key"), rows)


def render() -> str:
    """The page."""
    generations = _lines("Generations", ("kind", "recognised by"), [(f"`{k}`", v) for k, v in GENERATIONS.items()])
    settings = _lines(
        "Hyperparameters of the header", ("in the log", "ours"), [(f"`{k}`", f"`{v}`") for k, v in SETTINGS.items()]
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
        _OTHERS,
        *(_framework(framework) for framework in FRAMEWORKS if framework is not OURS),
        "## The verdict\n\n" + table(thresholds()),
        "## Hindsight\n\n" + table(rules()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    print(render(), end="")
