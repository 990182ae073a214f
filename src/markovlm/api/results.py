"""What the functions of the API return: as a table, and as a notebook shows it. The JSON of the command line is inside, unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from markovlm.texts.markup import html_table

if TYPE_CHECKING:
    import polars as pl

    from markovlm.health.diagnose import Diagnosis

_SHOWN = 20  # rows in a notebook


class StudyResult(dict[str, Any]):
    """The result of a study: the dict that `--json` prints, with a short repr and its main list of rows as a table."""

    def to_frame(self) -> pl.DataFrame:
        """Its longest list of rows, one row each; nested keys are joined by a dot (`drop.value`)."""
        import polars as pl

        return pl.DataFrame(self._rows()[1], infer_schema_length=None, strict=False)

    def _rows(self) -> tuple[str, list[dict[str, Any]]]:
        found = sorted(_lists(self), key=lambda pair: -len(pair[1]))
        name, rows = found[0] if found else ("", [])
        return name, [dict(_flat(row)) for row in rows]

    def __repr__(self) -> str:
        name, rows = self._rows()
        about = ", ".join(
            f"{key}={self[key]}" for key in ("part", "run", "checkpoint", "n") if isinstance(self.get(key), str | int)
        )
        return f"StudyResult({about}{'; ' if about else ''}{len(rows)} rows of {name or 'nothing'}; keys {', '.join(map(str, self))})"

    def _repr_html_(self) -> str:
        name, rows = self._rows()
        columns = [key for key in (rows[0] if rows else {}) if not isinstance(rows[0][key], list) or len(rows[0][key]) == 2][:8]
        cells = [[_short(row.get(column)) for column in columns] for row in rows[:_SHOWN]]
        more = f" (the first {_SHOWN} of {len(rows)}; to_frame() has all)" if len(rows) > _SHOWN else ""
        return html_table(f"{name}{more}", columns, cells)


class Diagnoses(list["Diagnosis"]):
    """A list of verdicts, one per run."""

    def to_frame(self) -> pl.DataFrame:
        """One row a run: path, verdict, onset_step, cause, why."""
        import polars as pl

        kinds = {"path": pl.String, "verdict": pl.String, "onset_step": pl.Int64, "cause": pl.String, "why": pl.String}
        return pl.DataFrame([dict(zip(kinds, _verdict(one), strict=True)) for one in self], schema=kinds)

    def _repr_html_(self) -> str:
        return html_table(
            "1 run" if len(self) == 1 else f"{len(self)} runs",
            ["run", "verdict", "since step", "cause", "why"],
            [_verdict(one) for one in self],
        )


def _verdict(one: Diagnosis) -> tuple[str, str, int | None, str | None, str]:
    return str(one.path), one.verdict, one.onset_step, one.cause and one.cause.sentence, one.why


def _lists(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, list[dict[str, Any]]]]:
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for key, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(one, dict) for one in cast("list[object]", inner)):
            found.append((prefix + str(key), cast("list[dict[str, Any]]", inner)))
        elif isinstance(inner, Mapping):
            found += _lists(cast("Mapping[str, Any]", inner), f"{prefix}{key}.")
    return found


def _flat(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in row.items():
        nested = isinstance(value, Mapping)
        pairs += _flat(cast("Mapping[str, Any]", value), f"{prefix}{key}.") if nested else [(prefix + str(key), value)]
    return pairs


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return "[" + ", ".join(f"{one:.3g}" if isinstance(one, float) else str(one) for one in cast("list[object]", value)) + "]"
    return value if not isinstance(value, str) or len(value) < 80 else value[:77] + "…"
