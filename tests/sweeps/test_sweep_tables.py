"""The tables of a sweep: an interval in a cell to read, a number a column as CSV."""

from __future__ import annotations

from markovlm.present.spreadsheet import to_csv
from markovlm.sweeps.compare import Outcome, compare
from markovlm.sweeps.tables import compared, flat, readable

OUTCOMES = [
    Outcome(f"{group}-{seed}", group, {"lr": group}, seed, "done", score + 0.01 * seed, 20, "test", (), 0.5, "healthy", 12.5, 5)
    for group, score in (("a", 0.5), ("b", 0.625))
    for seed in range(3)
]


def test_tables_to_read_and_flat_ones() -> None:
    found = compare(OUTCOMES, "a", "accuracy")
    cells, against = compared(found, "accuracy")
    assert [row[0].text for row in cells.rows] == ["a (reference)", "b"]
    assert cells.rows[0][2].text == "0.510 [0.485, 0.535]"  # t(.975, 2) * .01 / sqrt(3) = .0248
    assert cells.rows[0][cells.columns.index("verdicts")].text == "3 healthy"
    assert against.rows[0][against.columns.index("difference")].text == "0.125 [—]"  # the same of every seed
    assert [table.name for table in readable(OUTCOMES, found, "accuracy")][-1] == "cells_runs"
    heads = {table.name: to_csv(table).splitlines()[0] for table in flat(OUTCOMES, found, "accuracy")}
    assert heads == {
        "cells_groups": "cell,seeds,planned,accuracy,low,high,over,sd,lowest,highest,best_dev,collapsed,warn,seconds",
        "cells_differences": "cell,against,seeds,difference,low,high,over,p,p_holm,p_unpaired",
        "cells_factors": "key,value,against,pairs,seeds,difference,low,high,over,p,p_holm",
        "cells_runs": "run,cell,seed,status,accuracy,n,evaluated,best_dev,verdict,steps,seconds",
    }
