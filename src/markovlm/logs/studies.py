"""Reads RUN/loadbearing/*.json with doubt: what is missing or wrong becomes a problem, never an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markovlm.content import check_regular
from markovlm.logs.rows import MAX_TEXT, integer, parse
from markovlm.logs.study_records import (
    BASE,
    KINDS,
    Against,
    Bypass,
    Chains,
    ChangedCot,
    Control,
    Correlation,
    Damage,
    Estimate,
    Explain,
    Explained,
    Fact,
    Found,
    Intervention,
    KindLoad,
    Known,
    KnownShare,
    LagDamage,
    Leak,
    Perturb,
    PlaceCause,
    Point,
    PositionLoad,
    Resample,
    ResampledCot,
    Sentence,
    Study,
    ThreeWay,
    Transfer,
    Unit,
)

FOLDER = "loadbearing"
MAX_BYTES = 8_000_000  # of one file
MAX_FILES = 100
MAX_ROWS = 1_000  # of one list
MAX_UNITS = 3_000  # of one example
MAX_EXAMPLES = 12
MAX_LAGS = 5_000  # rows of damage to chains: perturbations x severities x lags
MAX_LABEL = 80  # characters of a name
MAX_UNIT_TEXT = 1_000
_LARGEST = 1e6  # no number of a study is larger


@dataclass(slots=True)
class _Fields:
    """One JSON object and the problems of its file."""

    row: Mapping[str, Any]
    told: Counter[str] = field(default_factory=Counter[str])

    def number(self, key: str) -> float | None:
        """A finite number of a bearable size, or None."""
        return self._number(self.row.get(key), key)

    def _number(self, value: Any, key: str) -> float | None:
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:  # NaN is not <= either
            return float(value)
        self.told[f"{key}: not a number of a bearable size, left missing"] += 1
        return None

    def share(self, key: str) -> float | None:
        """A number from 0 to 1."""
        value = self.number(key)
        if value is None or 0.0 <= value <= 1.0:
            return value
        self.told[f"{key}: not from 0 to 1, left missing"] += 1
        return None

    def count(self, key: str) -> int | None:
        value = integer(self.row.get(key))
        return value if value is not None and value >= 0 else None

    def text(self, key: str, most: int = MAX_TEXT) -> str:
        """A text of bounded length that any output can hold."""
        value = self.row.get(key)
        if value is None or isinstance(value, dict | list):
            return ""
        value = value if isinstance(value, str) else str(value)
        if len(value) > most:
            value = f"{value[:most]} … [{len(value) - most:,} more characters]"
        return value.encode("utf-8", "replace").decode("utf-8")

    def label(self, key: str) -> str:
        """A short text on one line, without control characters (an SVG that has one is no XML)."""
        return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(self.text(key, MAX_LABEL).split()))

    def part(self, key: str) -> _Fields:
        """The object under a key; an empty one where there is none."""
        value = self.row.get(key)
        if value is not None and not isinstance(value, Mapping):
            self.told[f"{key}: not an object"] += 1
        return _Fields(value if isinstance(value, Mapping) else {}, self.told)

    def rows(self, key: str, most: int = MAX_ROWS) -> list[_Fields]:
        """The objects of a list, at most `most`."""
        value = self.row.get(key)
        if not isinstance(value, list):
            if value is not None:
                self.told[f"{key}: not a list"] += 1
            return []
        if len(value) > most:
            self.told[f"{key}: {len(value):,} entries, of which the first {most:,} are shown"] += 1
        self.told[f"{key}: an entry that is not an object"] += sum(not isinstance(row, Mapping) for row in value[:most])
        return [_Fields(row, self.told) for row in value[:most] if isinstance(row, Mapping)]

    def estimate(self, key: str) -> Estimate:
        """A mean and its interval; an interval that is torn or upside down is left out."""
        part = self.part(key)
        mean, ends = part.number("mean"), part.row.get("ci95")
        bounds = [self._number(b, f"{key}.ci95") for b in ends] if isinstance(ends, list) and len(ends) == 2 else [None, None]
        low, high = bounds
        if low is None or high is None or low > high:
            if low is not None and high is not None:
                self.told[f"{key}.ci95: upside down, left out"] += 1
            low = high = None
        return Estimate(mean, low, high, part.count("n"))


def read_studies(folder: Path, problems: list[str]) -> list[Study]:
    """The studies in a run's folder, in the order of their steps; kinds that are not known are passed over."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
    except OSError as error:
        problems.append(f"{FOLDER}: {error.strerror or 'cannot be read'}")
        return []
    if len(files) > MAX_FILES:
        problems.append(f"{FOLDER}: {len(files):,} files, of which the first {MAX_FILES} were read")
    found = [study for path in files[:MAX_FILES] if (study := read_study(path, problems)) is not None]
    return sorted(found, key=lambda study: (KINDS.index(study.kind), _order(study), study.path.name))


def _order(study: Study) -> int:
    return -1 if study.checkpoint == BASE else study.step


def read_study(path: Path, problems: list[str]) -> Study | None:
    """One file; None where it is of an unknown kind or can't be read, which `problems` then says."""
    name = f"{FOLDER}/{path.name}"
    try:
        check_regular(path)
        if path.stat().st_size > MAX_BYTES:
            problems.append(f"{name}: larger than {MAX_BYTES // 1_000_000} MB, not read")
            return None
        row = parse(path.read_bytes())
    except OSError as error:
        problems.append(f"{name}: {error.strerror or 'cannot be read'}")
        return None
    except ValueError:
        problems.append(f"{name}: not valid JSON")
        return None
    if not isinstance(row, dict):
        problems.append(f"{name}: not a JSON object")
        return None
    fields = _Fields(row)
    study = _study(path, fields)
    told = [f"{name}: {message}" + (f" ({n:,} times)" if n > 1 else "") for message, n in fields.told.items() if n]
    problems += [*told[:10], *([f"{name}: {len(told) - 10} more kinds of problems"] if len(told) > 10 else [])]
    return study


def _study(path: Path, fields: _Fields) -> Study | None:
    kind = fields.row.get("kind")
    if not isinstance(kind, str) or kind not in _READERS:
        return None
    found = _READERS[kind](fields)
    if found is None:
        fields.told[f"a study of kind {kind} without results"] += 1
        return None
    notes = fields.row.get("notes")
    return Study(
        path=path,
        kind=kind,
        checkpoint=fields.label("checkpoint"),
        step=integer(fields.row.get("step")) or 0,
        split=fields.label("split"),
        task=fields.label("task"),
        model=fields.label("model"),
        conditioning=fields.label("conditioning"),
        n=fields.count("n"),
        cots_per_question=fields.count("cots_per_question"),
        notes=tuple(_Fields({"note": n}).text("note", 300) for n in notes[:5]) if isinstance(notes, list) else (),
        found=found,
    )


# --- the kinds ---------------------------------------------------------------------------------------------------------


def _perturb(fields: _Fields) -> Perturb | None:
    rows = tuple(_damage(row) for row in fields.rows("rows"))
    other, round_trip, intact = fields.part("against"), fields.part("round_trip_gap"), fields.part("intact")
    against = Against(*(other.label(key) for key in ("run", "checkpoint", "conditioning", "model"))) if other.row else None
    if not rows:
        return None
    return Perturb(
        rows=rows,
        against=against,
        round_trip=fields.estimate("round_trip_gap"),
        round_trip_changed=round_trip.share("changed"),
        intact=intact.estimate("logprob"),
        intact_accuracy=intact.estimate("accuracy"),
        other_accuracy=fields.part("intact_against").estimate("accuracy"),
    )


def _damage(row: _Fields) -> Damage:
    return Damage(
        perturbation=row.label("perturbation") or "?",
        level=row.label("level"),
        severity=row.share("severity"),
        n=row.count("n"),
        changed=row.share("changed"),
        drop=row.estimate("drop_logprob"),
        accuracy=row.estimate("drop_accuracy"),
        fragility=row.estimate("fragility"),
        fragility_accuracy=row.estimate("fragility_accuracy"),
        by=row.label("paraphraser"),
    )


def _transfer(fields: _Fields) -> Transfer | None:
    points = tuple(_point(row) for row in fields.rows("points"))
    correlations = tuple(
        Correlation(row.label("reader") or "?", row.number("spearman"), row.count("n"), row.share("p"))
        for row in fields.rows("correlation")
    )
    models = {row.label("reader"): row.label("model") for row in fields.rows("readers", 100)}
    return Transfer(models, points, correlations) if points else None


def _point(row: _Fields) -> Point:
    gain = row.part("vs_base")
    return Point(
        checkpoint=row.label("checkpoint") or "?",
        step=integer(row.row.get("step")) or 0,
        reader=row.label("reader") or "?",
        n=row.count("n"),
        logprob=row.estimate("logprob"),
        accuracy=row.estimate("accuracy"),
        gain=gain.estimate("logprob"),
        gain_accuracy=gain.estimate("accuracy"),
    )


def _explain(fields: _Fields) -> Explain | None:
    kinds = tuple(
        KindLoad(
            kind=row.label("kind") or "?",
            units=row.count("units"),
            questions=row.count("questions"),
            drop=row.estimate("drop"),
            share=row.number("share"),
            share_of_units=row.share("share_of_units"),
        )
        for row in fields.rows("by_kind", 100)
    )
    positions = tuple(
        PositionLoad(start, end, row.count("units"), row.estimate("drop"))
        for row in fields.rows("by_position", 100)
        if (start := row.share("from")) is not None and (end := row.share("to")) is not None and start <= end
    )
    by = fields.label("by") or "unit"
    examples = tuple(found for row in fields.rows("examples", MAX_EXAMPLES) if (found := _example(row)).units)
    if not (kinds or positions or examples):
        return None
    return Explain(by, fields.label("how") or "remove", kinds, positions, examples)


def _example(row: _Fields) -> Explained:
    correct = row.row.get("correct")
    units = [
        Unit(unit.text("text", MAX_UNIT_TEXT), unit.label("kind"), unit.number("drop")) for unit in row.rows("units", MAX_UNITS)
    ]
    return Explained(
        id=row.label("id"),
        question=row.text("question"),
        gold=row.text("gold", 500),
        answer=row.text("answer", 500),
        correct=correct if isinstance(correct, bool) else None,
        target=row.text("target", 500),
        logprob=row.number("logprob"),
        units=tuple(units),
    )


def _bypass(fields: _Fields) -> Bypass | None:
    rows = tuple(
        Control(
            control=row.label("control") or "?",
            reader=row.label("reader"),
            n=row.count("n"),
            accuracy=row.estimate("accuracy"),
            logprob=row.estimate("logprob"),
            survives=row.estimate("survives"),
        )
        for row in fields.rows("rows", 100)
    )
    bypass = fields.estimate("bypass")
    return Bypass(rows, bypass) if rows or bypass.mean is not None else None


def _leak(fields: _Fields) -> Leak | None:
    position = fields.part("position")
    quartiles = position.row.get("quartiles")
    places = [_Fields({"q": q}, fields.told).share("q") for q in quartiles] if isinstance(quartiles, list) else []
    known = [place for place in places if place is not None]
    leaks = fields.estimate("leaks")
    if leaks.mean is None:
        return None
    return Leak(
        leaks=leaks,
        leaks_other=fields.estimate("leaks_other"),
        position=position.share("mean"),
        quartiles=tuple(known) if len(known) == len(places) == 3 else (),
        accuracy=fields.estimate("accuracy"),
        accuracy_cut=fields.estimate("accuracy_cut_before"),
        logprob=fields.estimate("logprob"),
        logprob_cut=fields.estimate("logprob_cut_before"),
    )


def _chains(fields: _Fields) -> Chains | None:
    damage, facts = fields.part("damage"), fields.part("facts")
    found = Chains(
        chain=fields.label("chain"),
        damage=tuple(made for row in damage.rows("rows", MAX_LAGS) if (made := _lag_damage(row)) is not None),
        facts=tuple(made for row in facts.rows("questions") if (made := _fact(row)).known),
        by_age=_known_shares(facts, "by_age", "age"),
        by_t=_known_shares(facts, "by_t", "t"),
        survival=fields.part("words").estimate("survival"),
    )
    return found if found.damage or found.facts or found.survival.mean is not None else None


def _lag_damage(row: _Fields) -> LagDamage | None:
    lag = row.count("lag")
    if lag is None:
        return None
    return LagDamage(
        perturbation=row.label("perturbation") or "?",
        severity=row.share("severity"),
        lag=lag,
        predicted=row.label("predicted"),
        n=row.count("n"),
        drop=row.estimate("drop_logprob"),
        accuracy=row.estimate("drop_accuracy"),
        differs=row.estimate("state_differs"),
    )


def _fact(row: _Fields) -> Fact:
    known = [
        Known(t, cell.number("logprob"), correct if isinstance(correct := cell.row.get("correct"), bool) else None)
        for cell in row.rows("known")
        if (t := cell.count("t")) is not None
    ]
    return Fact(row.label("text"), row.label("question"), row.label("answer"), row.count("fact"), tuple(known))


def _known_shares(facts: _Fields, key: str, name: str) -> tuple[KnownShare, ...]:
    return tuple(
        KnownShare(at, row.count("n"), row.estimate("accuracy"), row.estimate("logprob"))
        for row in facts.rows(key)
        if (at := integer(row.row.get(name))) is not None and abs(at) <= _LARGEST
    )


def _intervention(fields: _Fields) -> Intervention | None:
    rows = tuple(
        ThreeWay(
            reader=row.label("reader"),
            n=row.count("n"),
            right_before=row.estimate("right_before"),
            follows=row.estimate("follows"),
            question=row.estimate("question"),
            neither=row.estimate("neither"),
        )
        for row in fields.rows("rows", 10)
    )
    examples = tuple(_changed(row) for row in fields.rows("examples", MAX_EXAMPLES))
    return Intervention(fields.count("cots"), fields.count("changed"), rows, examples) if rows else None


def _changed(row: _Fields) -> ChangedCot:
    answers = row.part("answers")
    names = [name for name in answers.row if isinstance(name, str)][:4]
    return ChangedCot(
        id=row.label("id"),
        question=row.text("question"),
        gold=row.text("gold", 500),
        cot=row.text("cot"),
        changed=row.text("changed"),
        result=row.text("result", 500),
        answers=tuple((_Fields({"name": name}).label("name"), answers.text(name, 500)) for name in names),
    )


def _resample(fields: _Fields) -> Resample | None:
    positions = tuple(
        PlaceCause(
            start,
            end,
            row.count("sentences"),
            row.estimate("tv"),
            row.estimate("chance"),
            row.estimate("kl"),
            row.estimate("accuracy_drop"),
            row.estimate("occlusion"),
        )
        for row in fields.rows("by_position", 100)
        if (start := row.share("from")) is not None and (end := row.share("to")) is not None and start <= end
    )
    cots = tuple(found for row in fields.rows("cots") if (found := _resampled(row)).sentences)
    if not (positions or cots):
        return None
    return Resample(fields.count("k"), fields.text("criterion", 300), positions, fields.estimate("rank_correlation"), cots)


def _resampled(row: _Fields) -> ResampledCot:
    correct = row.row.get("correct")
    sentences = [
        Sentence(
            text=one.text("text", MAX_UNIT_TEXT),
            tv=one.estimate("tv"),
            chance=one.share("chance"),
            p=one.share("p"),
            occlusion=one.number("occlusion"),
            right_with=one.share("accuracy_with"),
            right_without=one.share("accuracy_without"),
        )
        for one in row.rows("sentences", MAX_UNITS)
    ]
    return ResampledCot(
        id=row.label("id"),
        question=row.text("question"),
        gold=row.text("gold", 500),
        answer=row.text("answer", 500),
        correct=correct if isinstance(correct, bool) else None,
        sentences=tuple(sentences),
    )


_READERS: dict[str, Callable[[_Fields], Found | None]] = {
    "perturb": _perturb,
    "transfer": _transfer,
    "explain": _explain,
    "bypass": _bypass,
    "leak": _leak,
    "chains": _chains,
    "intervention": _intervention,
    "resample": _resample,
}
assert tuple(_READERS) == KINDS, "a kind without its reader"
