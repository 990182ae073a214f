"""The section on studies: words that follow from intervals, tables, figures, hostile and broken files, runs without studies."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.intervals import decimal_texts
from markovlm.logs.find import find_runs, read_run
from markovlm.report import ReportResult, write_report
from markovlm.report.draw import Drawers
from markovlm.report.figures import PRINT_CONFIG, for_print
from markovlm.report.loadbearing.figures import figures
from markovlm.report.loadbearing.section import section_of, shade, shade_causes
from markovlm.studies.claims import claim_of
from markovlm.studies.fields import MAX_ROWS
from markovlm.studies.fields import est as estimate
from markovlm.studies.files import MAX_BYTES, read_studies
from markovlm.studies.records import MAX_UNITS, Explain, Perturb, Resample, Study, Transfer
from markovlm.studies.tables import tables_of
from markovlm.studies.words import cell_text, nats, points, share
from report.loadbearing_samples import (
    bypass,
    chains,
    damage,
    est,
    everything,
    example,
    explain,
    head,
    intervention,
    leak,
    perturb,
    resample,
    transfer,
    write_studies,
)
from report.native import write_native
from report.test_report import HOSTILE, parsed, without_scripts


def study_of(tmp_path: Path, study: dict[str, Any]) -> Study:
    """The study as a report reads it; it must read without problems."""
    (tmp_path / "loadbearing").mkdir()
    problems: list[str] = []
    found = read_studies(write_studies(tmp_path, study) / "loadbearing", problems)
    assert problems == []
    assert len(found) == 1
    return found[0]


def said(tmp_path: Path, study: dict[str, Any]) -> str:
    claim = claim_of(study_of(tmp_path, study))
    return f"{claim.lead} {claim.more}".strip()


# --- numbers -----------------------------------------------------------------------------------------------------------


def test_numbers_as_text() -> None:
    e = estimate(0.55, 0.451, 0.642)
    assert points(e) == "55 [45, 64] points"
    assert points(estimate(0.01, -0.02, 0.04), " of accuracy") == "1 [-2, 4] points of accuracy"
    assert nats(estimate(1.2, 0.9, 1.5), 100) == "1.20 [0.90, 1.50] nats per answer token (n=100)"
    assert share(estimate(0.03, 0.01, 0.06), 80) == "3 % [1, 6] (n=80)"
    assert cell_text(estimate(1.2)) == "1.20 [—]"
    assert cell_text(estimate()) == "—"
    with pytest.raises(ValueError, match="cannot be put in a sentence"):
        nats(estimate(1.2))


def test_a_bound_near_zero_keeps_its_side() -> None:
    assert cell_text(estimate(0.5, 0.004, 1.0)) == "0.500 [0.004, 1.000]"  # not [0.00, 1.00], which would hold 0
    assert decimal_texts([1e-9, 1.0], 2) == ["1e-09", "1.00000"]
    assert decimal_texts([-0.0, 0.0], 2) == ["0.00", "0.00"]


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=3), st.integers(0, 2))
def test_no_number_but_zero_reads_as_zero(values: list[float], places: int) -> None:
    texts = [float(text.replace(",", "")) for text in decimal_texts(values, places)]
    assert [(t > 0) - (t < 0) for t in texts] == [(v > 0) - (v < 0) for v in values]


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (-0.1, 0.0, 0), (0.0, 0.0, 0), (None, 0.1, None)],
)
def test_the_sign_of_an_interval(low: float | None, high: float | None, sign: int | None) -> None:
    assert estimate(0.05, low, high).sign == sign


# --- what damage says --------------------------------------------------------------------------------------------------


def one_damage(half: float, drop: float = 1.2, **more: Any) -> dict[str, Any]:
    return perturb(rows=[damage("delete", "character", 0.4, drop, half, **more)], notes=[])


def test_damage_in_words(tmp_path: Path) -> None:
    study = one_damage(0.3, drop_accuracy={"mean": 0.55, "ci95": [0.45, 0.64]})
    assert claim_of(study_of(tmp_path, study)).lead == (
        "Deleting 40 % of the CoT costs 1.20 [0.90, 1.50] nats per answer token (n=100) and 55 [45, 64] points of accuracy."
    )


def test_damage_whose_interval_holds_zero(tmp_path: Path) -> None:
    text = said(tmp_path, one_damage(1.3, drop_accuracy=est(0.02, 0.05)))
    assert text.startswith("Deleting 40 % of the CoT has no measurable cost: 1.20 [-0.10, 2.50] nats per answer token (n=100)")
    assert "no measurable change of accuracy: -2 [-7, 3] points." in text
    assert "0 of 1 perturbations and severities have a measurable cost" in text


def test_damage_that_helps(tmp_path: Path) -> None:
    text = said(tmp_path, one_damage(0.1, drop=-0.4, drop_accuracy=est(-0.1, 0.05)))
    assert "does not hurt: it raises the answer's likelihood by 0.40 [0.30, 0.50] nats per answer token (n=100)" in text
    assert "accuracy rises by 10 [5, 15] points." in text


@given(mean=st.floats(-5, 5), half=st.floats(0, 5), level=st.sampled_from(["character", "token", "meaning"]))
def test_words_follow_the_interval(tmp_path_factory: pytest.TempPathFactory, mean: float, half: float, level: str) -> None:
    row = damage("delete", level, 0.4, mean, half, drop_accuracy=None)
    low, high = row["drop_logprob"]["ci95"]
    lead = claim_of(study_of(tmp_path_factory.mktemp("x"), perturb(rows=[row]))).lead
    assert (" costs " in lead) == (low > 0)
    assert ("no measurable" in lead) == (low <= 0 <= high)
    assert ("does not hurt" in lead) == (high < 0)


def test_no_claim_without_an_interval(tmp_path: Path) -> None:
    study = perturb(rows=[damage("delete", "character", 0.4, 1.2, None, drop_accuracy=None)])  # type: ignore[arg-type]
    claim = claim_of(study_of(tmp_path, study))
    assert (claim.lead, claim.more) == ("", "")
    assert "1.20 [—]" in {cell.text for table in tables_of(claim.study) for row in table.rows for cell in row}


def test_a_perturbation_that_changed_few_cots_says_so(tmp_path: Path) -> None:
    text = said(tmp_path, one_damage(0.3, changed=0.12, drop_accuracy=None))
    assert text.startswith("Deleting 40 % of the CoT, which changed only 12 % of the CoTs, costs")


def test_few_questions_are_said(tmp_path: Path) -> None:
    text = said(tmp_path, one_damage(0.3, drop_accuracy=None) | {"n": 12})
    assert "n=12)" in text  # rows of one question are not independent: the row's n=100 is not shown
    assert "Few questions (n=12)" in text


def test_a_broken_identity_check_comes_first(tmp_path: Path) -> None:
    rows = [damage("token_delete", "token", 0.0, 0.01, 0.0), damage("token_delete", "token", 0.4, 1.0)]
    assert said(tmp_path, perturb(rows=rows)).startswith(
        "The identity check fails: at severity 0, delete (token) has a drop of 0.01"
    )


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (0.35, "deleting 40 % of the CoT costs this run more, by 0.35 [0.15, 0.55] nats per answer token (n=100)."),
        (-0.35, "deleting 40 % of the CoT costs this run less, by 0.35 [0.15, 0.55] nats per answer token (n=100)."),
        (
            0.1,
            "no measurable difference in the cost of deleting 40 % of the CoT, 0.10 [-0.10, 0.30] nats per answer token (n=100).",
        ),
    ],
)
def test_fragility_in_words(tmp_path: Path, mean: float, words: str) -> None:
    against = {"run": "twin", "checkpoint": "step-000050", "conditioning": "non_markovian", "model": "embedded"}
    text = said(tmp_path, one_damage(0.3, fragility=est(mean, 0.2)) | {"against": against})
    assert f"Against twin (non-Markovian, step-000050): {words}" in text
    assert "Both runs" not in text


def test_twins_of_one_conditioning_are_not_the_papers_fragility(tmp_path: Path) -> None:
    against = {"run": "twin", "checkpoint": "base", "conditioning": "markovian", "model": "embedded"}
    text = said(tmp_path, one_damage(0.3, fragility=est(0.5, 0.2)) | {"against": against})
    assert "Both runs are Markovian, so this is not the paper's fragility." in text


# --- what the others say -----------------------------------------------------------------------------------------------


def test_transfer_in_words(tmp_path: Path) -> None:
    claim = claim_of(study_of(tmp_path, transfer()))
    assert claim.lead == "1 of 2 other models measurably gain from the CoTs of step-000050 over the base model's."
    assert "gpt2 (openai/gpt2): the gold answer gains 0.80 [0.65, 0.95] nats per answer token (n=100)" in claim.more
    assert (
        "tiny-llama (x/tiny): no measurable gain over the base model's CoTs, 0.05 [-0.10, 0.20] nats per answer token"
        in claim.more
    )


def test_which_words_in_words(tmp_path: Path) -> None:
    text = said(tmp_path, explain())
    assert (
        "Removing one word of the kind “number” costs 0.80 [0.70, 0.90] nats per answer token (n=400 units in 80 questions)."
        in text
    )
    assert "No measurable drop without: filler (80 questions)." in text
    assert "8 of 10 stretches" in text  # 0.1 ± 0.15 and 0.15 ± 0.15 hold 0


def test_bypass_in_words(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    how = " Mean of the controls “empty”, “other”, “filler”."
    first = "With the question visible, 3 % [1, 5] (n=90) of the right answers survive without the CoT."
    assert said(tmp_path, bypass()) == first + how
    none = "With the question visible, no measurable share of the right answers survives without the CoT: 1 % [0, 2] (n=90)."
    assert said(tmp_path / "b", bypass(0.01, 0.01)) == none + how


def test_a_bypass_over_few_right_answers_says_so(tmp_path: Path) -> None:
    rows = [{"control": "empty", "reader": "sees the question", "n": 100, "survives": est(0.25, 0.2, n=12)}]
    assert said(tmp_path, bypass(0.25, 0.2, rows=rows)).endswith("Few right answers (n=12): this interval is rough.")


def test_leak_in_words(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).mkdir()
    assert "accuracy falls from 95 % [92, 98] to 40 % [30, 50]." in said(tmp_path / "a", leak())
    assert "Another question's answer is there in 5 % [2, 8] (n=100), by chance." in said(tmp_path / "d", leak())
    overlap = said(tmp_path / "b", leak(accuracy_cut_before=est(0.9, 0.04)))
    assert "accuracy shows no clear change (the intervals overlap)" in overlap
    logprob = said(tmp_path / "c", leak(accuracy=None, accuracy_cut_before=None))
    assert "ln pi(a|CoT) falls from -0.15 [-0.19, -0.11] nats" in logprob


# --- tables and figures ------------------------------------------------------------------------------------------------


def test_the_table_like_the_papers(tmp_path: Path) -> None:
    tables = {t.title: t for t in tables_of(study_of(tmp_path, perturb(against=True)))}
    drop = next(t for title, t in tables.items() if title.startswith("Drop of ln pi"))
    assert drop.columns == ("perturbation", "20 %", "40 %", "60 %", "80 %", "100 %", "n", "CoTs changed")
    row = next(row for row in drop.rows if row[0].text == "delete (character)")
    assert [cell.text for cell in row] == [
        *("delete (character)", "0.60 [0.30, 0.90]", "1.20 [0.90, 1.50]", "1.80 [1.50, 2.10]", "2.40 [2.10, 2.70]"),
        *("3.00 [2.70, 3.30]", "100", "100 %"),
    ]
    assert next(iter(tables)).startswith("Fragility in nats")  # the comparison comes first
    assert "At severity 0 the drop is 0, as it must be." in next(iter(tables.values())).note
    fragile = next(t for title, t in tables.items() if title.startswith("Fragility in nats"))
    row = next(row for row in fragile.rows if row[0].text == "delete (character)")
    assert [cell.kind for cell in row[1:3]] == ["number null", "number"]  # -0.05 ± 0.2 and 0.25 ± 0.2


def drawn(tmp_path: Path) -> dict[str, Any]:
    run = read_run(everything(write_native(tmp_path / "run")))
    return {figure.name.split("-", 3)[-1]: figure for figure in section_of([run]).figures}


def test_the_heat_map_of_fragility_is_centred_at_zero(tmp_path: Path) -> None:
    figures = drawn(tmp_path)
    scale = figures["fragility"].spec["layer"][0]["encoding"]["color"]["scale"]
    low, middle, high = scale["domain"]
    assert (low, middle) == (-high, 0)
    assert high == pytest.approx(1.15)  # 0.5 * 3.0 - 0.35
    cells = {(c["damage"], c["at"]): c for c in figures["drop"].rows["cells"]}
    assert len(cells) == 8 * 5 + 5  # no identity check
    assert cells["delete (character)", "40 %"]["text"] == "1.20"
    assert cells["swap numbers (meaning)", "100 %"]["text"] == "(0.02)"
    assert figures["drop"].spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [0, 3.0]


def test_curves_of_readers_keep_the_base_apart(tmp_path: Path) -> None:
    rows = drawn(tmp_path)["transfer"].rows
    assert {(row["reader"], row["value"]) for row in rows["base"]} == {("actor", -1.6), ("gpt2", -2.4), ("tiny-llama", -2.0)}
    assert [row["step"] for row in rows["trained"] if row["reader"] == "gpt2"] == [10, 20, 30, 40, 50]


def test_every_figure_can_be_drawn(tmp_path: Path) -> None:
    figures = drawn(tmp_path)
    assert set(figures) == {"fragility", "drop", "transfer", "transfer-accuracy", "kinds", "positions", "causes"}
    with Drawers(1) as drawers:
        for figure in figures.values():
            assert drawers.svg(for_print(figure, []), PRINT_CONFIG).result().startswith("<svg")


def test_shades_of_a_cot(tmp_path: Path) -> None:
    found = study_of(tmp_path, explain())
    assert isinstance(found, Explain)
    shown = shade(found.examples[0])
    tones = {(s.text, s.tone) for s in shown.shades}
    assert {("30", "p5"), (",", "p0"), ("=", "p0"), (" so", "m1"), ("21", "p4")} <= tones  # of 2.2: 0, 0.05, -0.3, 1.6
    assert shown.heaviest[0] == ("30", "number", 2.2)
    assert "".join(s.text for s in shown.shades) == "17+4=21, so 21+9=30"


def test_interventions_in_words(tmp_path: Path) -> None:
    def made(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    claim = claim_of(study_of(made("run"), intervention()))
    assert claim.lead == (
        "One number of the CoT changed and the rest recalculated, question hidden: 80 % [70, 90] (n=60) of the answers follow the changed "
        "CoT; none measurably stay with the question's: 0 % [0, 0]."
    )
    assert claim.more == (
        "Question visible: 40 % [30, 50] (n=60) of the answers follow the changed CoT; 50 % [40, 60] stay with the question's."
    )
    twin = claim_of(study_of(made("twin"), intervention(conditioning="non_markovian")))
    assert twin.lead.startswith("One number of the CoT changed and the rest recalculated, question visible: 40 %")
    rows = [intervention()["rows"][0] | {"n": 12}]
    assert "Few CoTs had a number to change (n=12)" in claim_of(study_of(made("few"), intervention(rows=rows))).lead


def test_what_sentences_cause_in_words_and_in_colours(tmp_path: Path) -> None:
    study = study_of(tmp_path, resample())
    assert claim_of(study).more == (
        "1 of 2 sentences cause more than chance (p at most 0.05, each tested on its own; 0.1 would by chance). What sentences cause and what "
        "the reader loses without them are not measurably correlated: Spearman 0.20 [-0.20, 0.60]. "
        "(a sentence differs if it is not equal; 20 continuations per sentence.)"
    )
    assert isinstance(study, Resample)
    shown = shade_causes(study.cots[0])
    assert [shade.tone for shade in shown.causes] == ["p5", "p1", "p0"]  # .5 above chance, .05 above it, always written
    assert [shade.tone for shade in shown.bears] == ["p0", "p5", "m1"]
    assert [shade.hint for shade in shown.causes] == [
        "TV 0.70 [0.60, 0.80], by chance 0.20, p 0.001; right 0.90 with it, 0.20 without",
        "TV 0.25 [0.15, 0.35], by chance 0.20, p 0.400; right 0.90 with it, 0.80 without",
        "every continuation has it",
    ]
    [places] = tables_of(study)
    assert [row[0].text for row in places.rows] == ["0 to 20 %", "40 to 60 %", "80 to 100 %"]  # those with a sentence
    [figure] = figures("x", "run", study)
    assert [(row["from"], row["value"], row["chance"]) for row in figure.rows["bars"]] == [
        (0.0, 0.5, 0.2),
        (0.4, 0.5, 0.2),
        (0.8, 0.5, 0.2),
    ]


# --- the written report ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    folder = tmp_path_factory.mktemp("studied")
    everything(write_native(folder / "runs" / "studied"))
    write_native(folder / "runs" / "plain")
    return write_report([folder / "runs"], folder / "out")


def test_the_section_has_its_place(report: ReportResult) -> None:
    text = report.html.read_text()
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections[sections.index("loadbearing") - 1 : sections.index("loadbearing") + 2] == [
        "rewards",
        "loadbearing",
        "samples",
    ]
    assert "Deleting 40 % of the CoT costs 1.20 [0.90, 1.50] nats per answer token (n=100) and 55 [" in text
    assert "Not measured: <code>markovlm loadbearing RUN</code>, for RUN plain." in text
    page = parsed(report.html)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.targets) <= set(page.ids)
    assert re.search(r'href="[^"]*loadbearing/perturb-00.json" title="perturb-00.json">1.20 \[0.90, 1.50\]</a>', text)


def test_the_markdown_has_it_too(report: ReportResult) -> None:
    text = report.markdown.read_text()
    headings = re.findall(r"^## (.*)", text, flags=re.MULTILINE)
    assert headings[headings.index("Is the reasoning load-bearing?") + 1] == "Samples"
    section = text[text.index("## Is the reasoning") : text.index("## Samples")]
    paths = re.findall(r"\((figures/loadbearing-[\w-]+\.svg)\)", section)
    assert len(paths) == 7
    assert all((report.markdown.parent / path).read_text().startswith("<svg") for path in paths)
    assert "loadbearing" not in text[: text.index("## Is the reasoning")]
    assert "Not measured: `markovlm loadbearing RUN`, for RUN plain." in section


def test_csv_has_full_values(report: ReportResult) -> None:
    with open(next(p for p in report.tables if p.stem == "loadbearing-perturb")) as file:
        rows = {(r["perturbation"], r["level"], r["severity"]): r for r in csv.DictReader(file)}
    row = rows["delete", "character", "0.4"]
    assert (row["run"], row["drop_logprob"], row["drop_logprob_low"], row["drop_accuracy"]) == ("studied", "1.2", "0.9", "0.55")
    assert (row["fragility"], row["against"]) == ("0.25", "runs/twin")
    assert row["source"].endswith("perturb-00.json:")
    names = {p.stem for p in report.tables if p.stem.startswith("loadbearing")}
    assert {
        f"loadbearing-{n}"
        for n in ("transfer", "correlation", "explain-kinds", "explain-positions", "bypass", "leak", "intervention", "resample")
    } < names


def test_a_report_without_studies_gains_one_line(tmp_path: Path) -> None:
    result = write_report([write_native(tmp_path / "runs" / "a"), write_native(tmp_path / "runs" / "b")], tmp_path / "out")
    line = "Is the reasoning load-bearing? Not measured: {}markovlm loadbearing RUN{}, for RUN a, b."
    page = without_scripts(result.html.read_text())
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert [row for row in page.splitlines() if "loadbearing" in row] == [
        f'<p class="note" id="not-measured">{line.format("<code>", "</code>")}</p>'
    ]
    assert [row for row in result.markdown.read_text().splitlines() if "loadbearing" in row] == [line.format("`", "`")]
    assert not any("loadbearing" in path.name for path in result.tables)


def test_a_run_with_some_studies_says_what_is_missing(tmp_path: Path) -> None:
    result = write_report([write_studies(write_native(tmp_path / "a"), bypass())], tmp_path / "out")
    assert "perturb, transfer, explain, leak, intervention: <code>markovlm loadbearing RUN</code>" in result.html.read_text()
    assert "Not measured here: perturb, transfer, explain, leak, intervention (" in result.markdown.read_text()


def test_pages_of_explained_cots_are_linked_and_settings_of_one_run_are_folded(tmp_path: Path) -> None:
    run = write_studies(write_native(tmp_path / "a"), explain())
    label = next((run / "loadbearing").glob("explain*.json")).stem.removeprefix("explain-")
    for name in (
        f"explain-token-remove-all-{label}.html",
        f"explain-word-remove-1a2b-{label}.html",
        "explain-token-remove-all-x.html",
    ):
        (run / "loadbearing" / name).write_text("a page")
    text = write_report([run], tmp_path / "out").html.read_text()
    links = re.findall(r'href="\.\./a/loadbearing/(explain-[^"]*\.html)"', text)
    assert links == [f"explain-token-remove-all-{label}.html", f"explain-word-remove-1a2b-{label}.html"]
    assert re.search(r"<details><summary>\d+ settings</summary>", text)


def test_words_are_of_the_last_checkpoint_and_the_comparison(tmp_path: Path) -> None:
    run = write_native(tmp_path / "a")
    write_studies(
        run, perturb(n=90), perturb(against=True), perturb(**head("perturb", step=0)), perturb(**head("perturb", step=10))
    )
    part = section_of([read_run(run)]).parts[0]
    assert part.claims[0].study.path.name == "perturb-01.json"
    assert len(part.studies) == 4
    assert "[step" not in part.line
    write_studies(run, bypass(**head("bypass", step=10)))
    line = section_of([read_run(run)]).parts[0].line
    assert line.startswith("[step-000050] Deleting 40 % of the CoT costs")
    assert "[step-000010] With the question visible" in line


# --- broken and hostile ------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_told_and_nothing_fails(tmp_path: Path) -> None:
    run = write_native(tmp_path / "a")
    folder = run / "loadbearing"
    write_studies(run, leak(), {"kind": "horoscope", "n": 1}, {"kind": ["perturb"]}, {"kind": "perturb", "rows": "none"})
    (folder / "torn.json").write_text('{"kind": "perturb", "rows": [')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (folder / "large.json").write_bytes(b" " * (MAX_BYTES + 1))
    (folder / "folder.json").mkdir()
    (folder / "readings.jsonl").write_text('{"id": 1}\n')
    found = read_run(run)
    assert [s.kind for s in found.studies] == ["leak"]
    told = "\n".join(found.problems)
    for name in ("torn", "deep", "bytes"):
        assert f"loadbearing/{name}.json: not valid JSON" in told
    assert "loadbearing/list.json: not a JSON object" in told
    assert "loadbearing/large.json: 8,000,001 bytes, where at most 8,000,000 are expected: not read" in told
    assert "loadbearing/folder.json: " in told
    assert "perturb-03.json: a study of kind perturb without results" in told
    assert "rows: not a list" in told
    assert "horoscope" not in told
    assert find_runs([tmp_path]) == [run]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    row = damage("delete", "token", 0.4, 1.0) | {
        "drop_logprob": {"mean": float("nan"), "ci95": [0.1, 0.2]}, "drop_accuracy": {"mean": "0.5", "ci95": [0.4, 0.6]},
        "fragility": {"mean": 1e300, "ci95": [0, 1]}, "fragility_accuracy": {"mean": 0.5, "ci95": [0.6, 0.4]}, "changed": 7, "n": -3,
    }  # fmt: skip
    run = write_studies(write_native(tmp_path / "a"), perturb(rows=[row, 7, None]))
    found = read_run(run)
    perturbed = found.studies[0]
    assert isinstance(perturbed, Perturb)
    only = perturbed.rows[0]
    assert (only.drop_logprob.mean, only.drop_accuracy.mean, only.fragility.mean, only.changed, only.n) == (
        None,
        None,
        None,
        None,
        None,
    )
    assert only.fragility_accuracy == estimate(0.5, None, None)
    assert sum("mean: not a finite number of plausible size" in p and "3 times" in p for p in found.problems) == 1
    assert any("rows: an entry that is not an object (2 times)" in p for p in found.problems)


def test_long_lists_are_cut_and_told(tmp_path: Path) -> None:
    long = [{"text": "x", "kind": "word", "start": i, "drop": 0.1} for i in range(MAX_UNITS + 5)]
    run = write_studies(
        write_native(tmp_path / "a"),
        perturb(rows=[damage(f"p{i}", "token", 0.4, 1.0) for i in range(MAX_ROWS + 1)]),
        explain(examples=[example() | {"units": long}] * 9),
    )
    found = read_run(run)
    assert len(found.studies[0].rows) == MAX_ROWS  # type: ignore[union-attr]
    explained = found.studies[1]
    assert isinstance(explained, Explain)
    assert [len(e.units) for e in explained.examples] == [MAX_UNITS] * 9
    assert any("1,001 entries; only the first 1,000 are shown" in p for p in found.problems)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["mean", "ci95", "n", "units", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(data=st.data(), which=st.sampled_from([perturb, transfer, explain, bypass, leak, chains, intervention, resample]))
def test_junk_anywhere_never_fails_the_report(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, which: Any) -> None:
    study = which()
    for _ in range(data.draw(st.integers(1, 4))):
        here = study
        while True:
            key = data.draw(st.sampled_from(sorted(here))) if isinstance(here, dict) else data.draw(st.integers(0, len(here) - 1))
            if key == "kind" and here is study:
                break
            if data.draw(st.booleans()) or not isinstance(here[key], dict | list) or not here[key]:
                here[key] = data.draw(JUNK)
                break
            here = here[key]
    run = tmp_path_factory.mktemp("junk")
    (run / "config.yaml").write_text("task: arithmetic\n")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    section = section_of([read_run(write_studies(run, study))])
    assert all(table.rows for table in section.csv)
    json.dumps([figure.rows for figure in section.figures], allow_nan=False)
    assert all(part.line is not None and part.claims for part in section.parts)


def test_chains_in_words(tmp_path: Path) -> None:
    assert said(tmp_path, chains()) == (
        "Perturbing a state (another text's state in its place, 60 %) costs 0.84 [0.72, 0.96] nats per answer token (n=100) when it is "
        "read at once, and costs 0.36 [0.24, 0.48] nats per answer token (n=100) 2 chunks later. The answer in the notes right after its "
        "fact was read is right in 95 % [87, 100] (n=60), 3 chunks after it in 40 % [32, 48] (n=60). 45 % [40, 50] of a state's "
        "words are also in the next one."
    )


def test_thinking_in_words(tmp_path: Path) -> None:
    words = said(tmp_path, chains("thinking"))
    assert "(another question's piece in its place, 60 %)" in words
    assert "2 pieces later" in words
    assert "The answer read from piece 1 is right in 20 % [10, 30] (n=30), from piece 4 in 80 % [70, 90] (n=30)." in words


def test_a_late_damage_whose_interval_holds_zero_is_no_claim(tmp_path: Path) -> None:
    rows = [row for row in chains()["damage"]["rows"] if row["perturbation"] == "other_cot"]
    for row in rows:
        if row["lag"] == 2:
            row["drop_logprob"] = est(0.1, 0.2)
    words = said(tmp_path, chains(damage={"rows": rows}))
    assert "and has no measurable cost, 0.10 [-0.10, 0.30] nats per answer token (n=100), 2 chunks later." in words


def test_a_run_of_chains_has_its_studies_in_the_report(tmp_path: Path) -> None:
    run = write_studies(write_native(tmp_path / "a"), chains())
    (data,) = (run / "loadbearing").glob("*.json")
    data.with_suffix(".html").write_text("a page")
    result = write_report([run], tmp_path / "out")
    text = result.html.read_text()
    assert f'href="../a/loadbearing/{data.stem}.html"' in text
    assert "Pages of states, word by word" in text
    assert "not measured here" not in text  # the studies of single CoTs are not for chains
    for name in ("facts", "known", "lags"):
        assert f'data-figure="loadbearing-0-0-{name}"' in text
        ElementTree.parse(tmp_path / "out" / "figures" / f"loadbearing-0-0-{name}.svg")
    assert "bob? 10" in (tmp_path / "out" / "figures" / "loadbearing-0-0-facts.svg").read_text()
    with open(tmp_path / "out" / "tables" / "loadbearing-chains-questions.csv") as file:
        assert len(file.readlines()) == 1 + 30 * 4
    assert "facts that enter the notes" in result.markdown.read_text()


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    for i, text in enumerate(HOSTILE):
        run = write_native(tmp_path / "runs" / f"run-{i}", steps=3, samples=[])
        units = [{"text": text, "kind": text, "start": 0, "drop": 1.0}]
        shown = {"id": text, "question": text, "gold": text, "answer": text, "correct": True, "target": text, "logprob": -1.0}
        other = {"run": text, "checkpoint": text, "conditioning": text, "model": text}
        by_kind = [{"kind": text, "units": 3, "drop": est(1.0, 0.1)}]
        write_studies(
            run,
            perturb(rows=[damage(text, text, 0.4, 1.2, fragility=est(0.5, 0.1))], notes=[text]) | {"against": other},
            transfer(readers=[{"reader": "gpt2", "model": text}], checkpoint=text, split=text, conditioning=text),
            explain(examples=[shown | {"units": units}], by=text, how=text, by_kind=by_kind),
            bypass(rows=[{"control": text, "reader": text, "n": 3, "accuracy": est(0.5, 0.1)}]),
            chains(
                text,
                facts={"questions": [{"text": text, "question": text, "answer": text, "known": [{"t": 1, "logprob": -1.0}]}]},
            ),
            intervention(
                rows=[{"reader": text, "n": 3, "follows": est(0.5, 0.1), "question": est(0.5, 0.1)}],
                examples=[shown | {"cot": text, "changed": text, "result": text, "answers": {text: text}}],
            ),
            resample(criterion=text, cots=[shown | {"sentences": [{"text": text, "tv": est(0.5, 0.1), "occlusion": 1.0}]}]),
        )
    result = write_report([tmp_path / "runs"], tmp_path / "out")
    page = parsed(result.html)
    assert page.tags["script"] == 3
    assert "img" not in page.tags
    visible = without_scripts(result.html.read_text())
    assert visible.count('<article class="studied">') == len(HOSTILE)
    assert "<script>document" not in visible
    assert 'onerror="document' not in visible
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", result.markdown.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<(script|img)", outside)
    assert not re.search(r"(?<!\\)!\[x", outside)
    assert result.html.stat().st_size < 4_000_000
    for path in (tmp_path / "out" / "figures").glob("loadbearing*.svg"):
        ElementTree.parse(path)


def test_the_studies_of_transfer_have_their_models(tmp_path: Path) -> None:
    found = study_of(tmp_path, transfer())
    assert isinstance(found, Transfer)
    assert found.models["gpt2"] == "openai/gpt2"
    assert found.correlation[1].spearman is None
