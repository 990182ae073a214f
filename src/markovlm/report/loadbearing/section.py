"""The section "Is the reasoning load-bearing?" of all runs: what is said, shown and tabulated, and which runs were not studied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markovlm.intervals import p_text
from markovlm.logs.records import RunData
from markovlm.present.table import Source, Table
from markovlm.report.figures import Figure
from markovlm.report.loadbearing.figures import figures
from markovlm.studies.claims import Claim, claim_of
from markovlm.studies.files import KINDS
from markovlm.studies.records import (
    BASE,
    ChangedCot,
    Explain,
    Explained,
    Intervention,
    Own,
    Perturb,
    Resample,
    ResampledCot,
    Sentence,
    Study,
)  # fmt: skip
from markovlm.studies.tables import long_tables, tables_of
from markovlm.studies.words import cell_text

TITLE = "Is the reasoning load-bearing?"
NOTHING_CLAIMED = "No perturbation, bypass or transfer was measured with an interval, so nothing is claimed about them."
NOTE = (
    "Intervals are 95 % over questions, and each statement follows from its interval. An interval of zero width means "
    "that all questions agreed, not that the number is certain."
)
LEGEND = (
    "Heat maps: red is a loss; a number in brackets has an interval that contains 0. Curves and bars: thin lines are "
    "intervals; dashed lines are the same reader with the base model's CoTs."
)
CHAIN_LEGEND = (
    "Every question is asked of every state: the darker the cell, the likelier the answer (geometric mean over its "
    "tokens); ✓ right, × wrong. Framed: the chunk that contains the fact, before which the answer can only be guessed. "
    "Perturbation is drawn at the severity nearest to 60 %; the CSV has all severities. Thin lines are intervals."
)
MOST_DETAILED = 12  # runs with tables and figures on the page
MOST_PRINTED = 3  # runs with figures beside the Markdown file
MOST_PAGES = 12  # of explained CoTs, linked from one run
_STEPS = 5  # of colour
_LITTLE = 0.1  # total variation above chance below which the heaviest sentence is not shown as heavy
# kinds that no run of single questions is missing: one is made when named, one of chains alone, one where it is registered
_ASKED_FOR = ("resample", "chains", "own")
MOST_RESAMPLED = 6  # CoTs with their sentences on the page
_FAINT = 0.05  # nats below which the heaviest unit of a CoT is not shown as heavy


@dataclass(frozen=True, slots=True)
class Shade:
    """A unit of a CoT as shown. `tone`: p5 costs most when missing, p0 nothing, m5 helps most when missing."""

    text: str
    tone: str
    hint: str


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One CoT, unit by unit."""

    found: Explained
    shades: tuple[Shade, ...]
    heaviest: tuple[tuple[str, str, float], ...]  # (text, kind, drop)


@dataclass(frozen=True, slots=True)
class ShownCauses:
    """One CoT, sentence by sentence, twice: what each causes (total variation above chance), and what it bears (occlusion)."""

    found: ResampledCot
    causes: tuple[Shade, ...]
    bears: tuple[Shade, ...]


@dataclass(frozen=True, slots=True)
class ShownStudy:
    """One study: where it was made and its tables."""

    study: Study
    source: Source
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class RunPart:
    """What is known of one run."""

    run: str
    claims: tuple[Claim, ...]
    missing: tuple[str, ...]  # kinds of study that were not made
    studies: tuple[ShownStudy, ...]
    figures: tuple[Figure, ...]
    examples: tuple[ShownExample, ...]
    notes: tuple[str, ...]
    pages: tuple[Source, ...] = ()  # that `markovlm explain` wrote: every CoT, unit by unit; of chains every state, word by word
    changed: tuple[ChangedCot, ...] = ()  # with the answers read from them
    causes: tuple[ShownCauses, ...] = ()

    @property
    def of_chains(self) -> bool:
        return any(claim.study.kind == "chains" for claim in self.claims)

    @property
    def legend(self) -> str:
        """How its figures are read."""
        return CHAIN_LEGEND if self.of_chains else LEGEND

    @property
    def pages_title(self) -> str:
        return "Pages of states, word by word" if self.of_chains else "Pages of explained CoTs"

    @property
    def line(self) -> str:
        """What was found, in one line: damage, bypass, other readers; each with its checkpoint where these differ."""
        several = len({claim.study.checkpoint for claim in self.claims}) > 1
        said = {c.study.kind: f"[{c.study.checkpoint}] {c.lead}" if several and c.lead else c.lead for c in self.claims}
        return " ".join(said[kind] for kind in ("perturb", "bypass", "intervention", "transfer", "chains") if said.get(kind))


@dataclass(frozen=True, slots=True)
class Section:
    """All of it."""

    parts: tuple[RunPart, ...]
    not_measured: tuple[str, ...]  # runs of this package without studies
    csv: tuple[Table, ...]

    @property
    def figures(self) -> list[Figure]:
        return [figure for part in self.parts for figure in part.figures]

    @property
    def printed(self) -> list[Figure]:
        return [figure for part in self.parts[:MOST_PRINTED] for figure in part.figures]

    @property
    def not_measured_line(self) -> str:
        """`Not measured: markovlm loadbearing RUN, for RUN a, b`; empty where all runs are."""
        if not self.not_measured:
            return ""
        names = ", ".join(self.not_measured[:6])
        more = f" and {len(self.not_measured) - 6} more" if len(self.not_measured) > 6 else ""
        return f"for RUN {names}{more}"


def section_of(runs: Sequence[RunData]) -> Section:
    """The section; `parts` is empty if no run was studied."""
    studied = [run for run in runs if run.studies]
    parts = tuple(_part(i, run, detailed=i < MOST_DETAILED) for i, run in enumerate(studied))
    named = [(run.name, study) for run in studied for study in run.studies]
    without = tuple(run.name for run in runs if run.native and not run.studies)
    return Section(parts, without, tuple(long_tables(named)))


def chief(studies: Sequence[Study]) -> Study:
    """The study that is put in words: of the last checkpoint; against another run before alone; on most questions."""

    def rank(study: Study) -> tuple[int, bool, int]:
        against = isinstance(study, Perturb) and bool(study.against)
        return -1 if study.checkpoint == BASE else study.step, against, study.n or 0

    return max(studies, key=rank)


def _part(index: int, run: RunData, detailed: bool) -> RunPart:
    by_kind = {kind: [s for s in run.studies if s.kind == kind] for kind in KINDS}
    alike: dict[tuple[str, str], list[Study]] = {}
    for kind, found in by_kind.items():
        for study in found:
            alike.setdefault((kind, study.study if isinstance(study, Own) else ""), []).append(study)
    chiefs = [chief(found) for found in alike.values()]
    ordered = [*chiefs, *(s for s in run.studies if s not in chiefs)]
    drawn = [f for i, s in enumerate(chiefs) for f in figures(f"loadbearing-{index}-{i}", run.name, s)] if detailed else []
    shown = [ShownStudy(s, Source(s.path), tuple(tables_of(s))) for s in ordered] if detailed else []
    explained = next((s for s in chiefs if isinstance(s, Explain)), None)
    intervened = next((s for s in chiefs if isinstance(s, Intervention)), None)
    resampled = next((s for s in chiefs if isinstance(s, Resample)), None)
    return RunPart(
        run=run.name,
        claims=tuple(claim_of(study) for study in chiefs),
        missing=()
        if by_kind["chains"]
        else tuple(kind for kind, found in by_kind.items() if not found and kind not in _ASKED_FOR),
        studies=tuple(shown),
        figures=tuple(drawn),
        examples=tuple(shade(e) for e in explained.explained) if explained and detailed else (),
        notes=tuple(dict.fromkeys(note for study in chiefs for note in study.notes)),
        pages=tuple(Source(page) for study in ordered for page in _pages(study)),
        changed=intervened.examples if intervened and detailed else (),
        causes=tuple(map(shade_causes, resampled.resampled[:MOST_RESAMPLED])) if resampled and detailed else (),
    )


def _pages(study: Study) -> list[Path]:
    if study.kind == "chains":
        page = study.path.with_suffix(".html")
        return [page] if page.is_file() else []
    return explain_pages(study.path) if study.kind in ("explain", "resample") else []


def explain_pages(study: Path) -> list[Path]:
    """The pages beside a study `explain-LABEL.json`: `explain-token-remove-all-LABEL.html`, those of single questions last; so of `resample`."""
    kind, _, label = study.stem.partition("-")
    try:
        found = [p for p in study.parent.iterdir() if p.name.startswith(f"{kind}-") and p.name.endswith(f"-{label}.html")]
    except OSError:
        return []
    return sorted(found, key=lambda page: ("-all-" not in page.name, page.name))[:MOST_PAGES]


def shade(example: Explained) -> ShownExample:
    """Colours of the units, relative to the heaviest of the CoT."""
    drops = [abs(unit.drop) for unit in example.units if unit.drop is not None]
    most = max([_FAINT, *drops])
    shades = tuple(
        Shade(u.text, _tone(u.drop, most), f"{u.kind}: not measured" if u.drop is None else f"{u.kind}: drop {u.drop:.3g} nats")
        for u in example.units
    )
    heavy = sorted((u for u in example.units if u.drop is not None and u.drop > 0), key=lambda u: -(u.drop or 0.0))[:5]
    return ShownExample(example, shades, tuple((u.text, u.kind, u.drop or 0.0) for u in heavy))


def shade_causes(cot: ResampledCot) -> ShownCauses:
    """Both maps, each relative to the heaviest sentence of the CoT."""
    above = [None if s.tv.mean is None else s.tv.mean - (s.chance or 0.0) for s in cot.sentences]
    most = max([_LITTLE, *(abs(v) for v in above if v is not None)])
    heavy = max([_FAINT, *(abs(s.occlusion) for s in cot.sentences if s.occlusion is not None)])
    causes = tuple(
        Shade(s.text, _tone(max(0.0, v) if v is not None else None, most), _caused(s))
        for s, v in zip(cot.sentences, above, strict=True)
    )
    bears = tuple(
        Shade(s.text, _tone(s.occlusion, heavy), "not measured" if s.occlusion is None else f"drop {s.occlusion:.3g} nats")
        for s in cot.sentences
    )
    return ShownCauses(cot, causes, bears)


def _caused(s: Sentence) -> str:
    if s.tv.mean is None:
        return "every continuation has it"
    rates = (
        ""
        if s.accuracy_with is None or s.accuracy_without is None
        else f"; right {s.accuracy_with:.2f} with it, {s.accuracy_without:.2f} without"
    )
    chance = "" if s.chance is None else f", by chance {s.chance:.2f}"
    return f"TV {cell_text(s.tv)}{chance}{'' if s.p is None else f', p {p_text(s.p)}'}{rates}"


def _tone(drop: float | None, most: float) -> str:
    if drop is None:
        return "p0"
    level = math.ceil(_STEPS * abs(drop) / most - 0.25)  # a twentieth of the heaviest is nothing yet
    return f"{'p' if drop >= 0 or level <= 0 else 'm'}{max(0, level)}"
