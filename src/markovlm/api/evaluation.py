"""Evaluate checkpoints of a run, adapters or a model: accuracy from the CoT alone, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.api.arguments import listed, require_count, require_text
from markovlm.errors import UserError
from markovlm.intervals import estimate_text
from markovlm.models.registry import model_defaults
from markovlm.runs.store import default_store
from markovlm.tasks import task_names
from markovlm.texts.markup import html_table, intervals_svg

if TYPE_CHECKING:
    import polars as pl

    from markovlm.evaluation.chain_run import ChainResult
    from markovlm.evaluation.run import Counting, Result

DIFFERENCE = 0.05  # of accuracy: a warning says where n is too small to show it


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Evaluations of one or several checkpoints on the same questions."""

    report: dict[str, Any]  # what `markovlm eval --json` prints (docs/evaluation.md)
    results: Sequence[Result] | Sequence[ChainResult]  # one a checkpoint, with every reading
    store: Path  # where the readings are kept

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the last checkpoint by the default extractor; None if answers are free texts."""
        return self._last["accuracy"]

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The 95 % Wilson interval of `accuracy`."""
        return self._last["ci95"] and tuple(self._last["ci95"])

    @property
    def n(self) -> int:
        return self._last["n"]

    def to_frame(self) -> pl.DataFrame:
        """One row per checkpoint: checkpoint, n, accuracy, ci_low, ci_high (95 %, Wilson), logprob (nats per answer token)."""
        import polars as pl

        kinds = {
            "checkpoint": pl.String,
            "n": pl.Int64,
            **dict.fromkeys(("accuracy", "ci_low", "ci_high", "logprob"), pl.Float64),
        }
        return pl.DataFrame([dict(zip(kinds, row, strict=True)) for row in self._table()], schema=kinds)

    def _table(self) -> list[tuple[str, int, float | None, float | None, float | None, float | None]]:
        rows: list[tuple[str, int, float | None, float | None, float | None, float | None]] = []
        for result in self.results:
            found = result.evaluation.summary()
            low, high = found["ci95"] or (None, None)
            rows.append((str(result.checkpoint), found["n"], found["accuracy"], low, high, found.get("logprob")))
        return rows

    def __repr__(self) -> str:
        parts = [
            f"{name} {f'log-likelihood {logprob:.3f}' if right is None else f'accuracy {estimate_text(right, low, high)}'} (n = {n})"
            for name, n, right, low, high, logprob in self._table()
        ]
        return f"Evaluated({'; '.join(parts)}; kept in {self.store})"

    def _repr_html_(self) -> str:
        rows = self._table()
        cells = [(name, n, estimate_text(right, low, high), logprob) for name, n, right, low, high, logprob in rows]
        shown = [(name, right, low, high) for name, _, right, low, high, _ in rows if None not in (right, low, high)]
        drawn = intervals_svg(shown) if shown else ""  # pyright: ignore[reportArgumentType]
        return (
            html_table("Accuracy from the CoT alone", ["checkpoint", "n", "accuracy [95 %]", "ln π(answer | CoT)"], cells) + drawn
        )

    @property
    def _last(self) -> dict[str, Any]:
        return self.results[-1].evaluation.summary()


def evaluate(
    target: str | Path,
    *,
    checkpoints: str | None = None,
    baseline: bool = False,
    split: str | None = None,
    limit: int | None = None,
    non_markovian: bool = False,
    no_cot: bool = False,
    rescore: bool = False,
    difference: float = DIFFERENCE,
    out: str | Path | None = None,
    lengths: Sequence[int] = (),
    config: Mapping[str, Any] | None = None,
    counting: Counting | None = None,
    **keys: Any,
) -> Evaluated:
    """Evaluate checkpoints, as `markovlm eval` does, flag by flag. Rows are kept: an interrupted evaluation continues.

    `checkpoints`: last, best, all, base, or steps such as "100,200"; `baseline` adds the untrained base, paired by question.
    `non_markovian` and `no_cot` are the controls. For a run with chains every control is measured (docs/chains.md), and `lengths` are
    further numbers of chunks to evaluate at. Raises UserError in one line for what can't be done.

        markovlm.evaluate("runs/first", baseline=True, limit=200).accuracy
    """
    from markovlm.api.models import settings
    from markovlm.runs.ahead import check_ahead
    from markovlm.runs.targets import open_targets

    if checkpoints is not None:
        require_text("--checkpoints", checkpoints, "'last', 'all' or '100,200'")
    lengths = listed("--lengths", lengths, Integral, "numbers of chunks")
    _check(limit, difference, rescore, non_markovian or no_cot, None if out is None else Path(out))
    over = settings(config, keys)
    name = str(target)
    wanted = checkpoints or ("all" if rescore else "last")  # with rescore everything that is kept, unless checkpoints are named
    targets = open_targets(name, f"{wanted},base" if baseline else wanted, over)
    targets.sort(key=lambda t: -1 if t.step is None else t.step)
    chosen, run = targets[0].config, targets[0].run
    if run is None and "task" not in over and "task" not in model_defaults(chosen.model) and not rescore:
        raise UserError(f"--task: {name} is not a run of markovlm, so a task is needed: one of {', '.join(task_names())}")
    split = split or chosen.data.test_split
    check_ahead(chosen, split)
    store = Path(out) if out is not None else (run.path / "evaluations" if run else default_store(name, chosen.task))
    if chosen.chain.on:
        if no_cot or rescore:
            raise UserError("--no-cot and --rescore: not for chains, whose controls are always measured; leave them out")
        from markovlm.evaluation.chain_run import chain_report, evaluate_chain_targets

        size = limit or chosen.evaluation.test_size
        found = evaluate_chain_targets(targets, split, size, store, counting, non_markovian=non_markovian, lengths=lengths)
        return Evaluated(chain_report(chosen, split, found), [one for one in found if one.steps is None], store)
    if lengths:
        raise UserError("--lengths: only for runs with chains, and this run has none (chain.kind is not set)")
    from markovlm.evaluation.report import choose, evaluation_report
    from markovlm.evaluation.run import Control, evaluate_targets, rescore_targets

    if rescore:
        names = [one.checkpoint for one in targets] if checkpoints else None
        results = rescore_targets(store, split, names, run, chosen.data.dev_split, chosen.evaluation.extractors)
    else:
        size = limit or chosen.evaluation.test_size
        results = evaluate_targets(targets, split, size, Control(non_markovian, no_cot), store, counting, choose=True)
    report = evaluation_report(chosen, results, choose(targets[-1], results, chosen.seed), difference)
    return Evaluated(report, results, store)


def trained_tasks(target: str | Path, config: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The tasks to evaluate one after another: those of a run on several tasks, unless `config` names one; otherwise empty."""
    from markovlm.config import build_config, load_recorded
    from markovlm.runs.targets import is_run

    path = Path(target).expanduser()
    if not is_run(path) or "task" in (config or {}):
        return ()
    return tuple(build_config(load_recorded(path / "config.yaml"), source=str(path / "config.yaml")).tasks)


def _check(limit: int | None, difference: float, rescore: bool, control: bool, out: Path | None) -> None:
    if limit is not None:
        require_count("--limit", limit)
    if not 0 < difference < 0.5:
        raise UserError(f"--difference {difference}: must be between 0 and 0.5, a difference of accuracy such as 0.05")
    if rescore and (limit is not None or control):
        raise UserError("--rescore applies to all kept answers; leave out --limit, --non-markovian and --no-cot")
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a directory")
