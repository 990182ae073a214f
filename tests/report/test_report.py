"""The written report: everything in it, hostile texts harmless, files whole, at any number of runs."""

from __future__ import annotations

import csv
import html
import json
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from markovlm.errors import UserError
from markovlm.health.diagnose import diagnose_paths
from markovlm.present.markdown import escaped, fenced
from markovlm.present.spreadsheet import to_csv
from markovlm.present.table import number_text
from markovlm.report import ReportResult, build, write_report
from markovlm.report.draw import Drawers, DrawingFailed
from markovlm.report.figures import PRINT_CONFIG, curves, decimate, first_shown, for_print
from markovlm.report.html import packed, script_json
from markovlm.report.tables import verdicts
from report.native import CONFIG, eval_row, metric_row, sample_row, write_native
from report.seed import write_seed

HOSTILE = [
    "<script>document.body.dataset.hacked='yes'</script>",
    "</script><img src=x onerror=\"document.body.dataset.hacked='yes'\">",
    "<!--<script>",
    "]]>&lt;b&gt;{{ 7*7 }}{% raw %}",
    "| a | b |\n```\n# heading\n![x](http://evil.example/x.png)",
    '=HYPERLINK("http://evil.example")',
    "\u2028\u2029\x00\x07\ud800",
    "x" * 100_000,
]


class _Ids(HTMLParser):
    """Ids, link targets and sources of scripts of a page; fails nothing, collects."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.loads: list[str] = []
        self.tags: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if found.get("id"):
            self.ids.append(found["id"] or "")
        if tag == "a" and (found.get("href") or "").startswith("#"):
            self.targets.append((found["href"] or "")[1:])
        self.loads += [v for k, v in attrs if v and (k == "src" or (tag == "link" and k == "href"))]


def parsed(path: Path) -> _Ids:
    page = _Ids()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def seed_report(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    folder = tmp_path_factory.mktemp("seed")
    write_native(folder / "runs" / "native")
    write_seed(folder / "runs" / "seed")
    return write_report([folder / "runs"], folder / "out")


def test_what_is_written(seed_report: ReportResult) -> None:
    row = json.loads(json.dumps(seed_report.as_json()))
    assert list(row) == ["html", "markdown", "tables", "runs", "steps", "seconds"]
    assert row["runs"] == 6
    assert row["steps"] == 300 + 5 + 4 + 15
    out = seed_report.html.parent
    assert all(Path(p).exists() for p in [row["html"], row["markdown"], *row["tables"]])
    assert not list(out.rglob(".*.tmp"))
    names = {p.stem for p in seed_report.tables}
    assert {"verdicts", "signals", "findings", "settings", "accuracy", "milestones", "samples", "problems"} <= names


def test_the_page_is_one_file_that_loads_nothing(seed_report: ReportResult) -> None:
    page = parsed(seed_report.html)
    assert page.loads == []
    assert page.tags["script"] == 3
    assert "default-src 'none'" in seed_report.html.read_text()
    assert len(page.ids) == len(set(page.ids))
    assert set(page.targets) <= set(page.ids)


def test_the_order_of_the_page_and_its_first_words(seed_report: ReportResult) -> None:
    text = seed_report.html.read_text()
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == ["verdicts", "comparison", "accuracy", "curves", "milestones", "rewards", "samples", "methods"]
    assert "<h1>1 of 6 runs collapsed, 1 is healthy, 4 cannot be judged (4 in doubt).</h1>" in text
    first = text[text.index('class="verdict-row') :][:1500]
    assert "arc/run1" in first
    assert "do not use checkpoints from step 999 on" in first
    trust = text[text.index("Run to trust") :].split("</p>")[0]
    assert "native" in trust
    assert "gsm8k" not in trust
    assert "arc/run1" not in trust


def test_why_no_run_is_trusted_is_a_table_and_the_accuracies_can_be_sorted(seed_report: ReportResult) -> None:
    text = seed_report.html.read_text()
    why = text[text.index('id="untrusted"') :].split("</table>")[0]
    tasks = re.findall(r'<tr><td class="" data-value="([^"]*)"', why)
    assert len(tasks) >= 2
    assert "native" not in why
    accuracy = text[text.index('<section id="accuracy"') :].split("</table>")[0]
    assert accuracy.count('data-column="') == accuracy.count('<button type="button">') == len(re.findall("<th ", accuracy))
    assert re.search(r'<td class="[^"]*number[^"]*" data-value="0\.\d+"', accuracy)


def test_a_sample_says_what_was_answered_or_why_it_does_not(seed_report: ReportResult) -> None:
    text = seed_report.html.read_text()
    rows = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])["samples"]
    assert rows
    assert all(("answered" in row) != ("unanswered" in row) for row in rows)
    assert "[answer read" not in text
    assert any("training scores it" in row.get("unanswered", "") for row in rows if row["run"] == "native")
    assert any(row.get("answered") == row["answer"] for row in rows if row["run"] == "native")


def test_numbers_link_to_the_file_and_line_they_came_from(seed_report: ReportResult) -> None:
    text = seed_report.html.read_text()
    found = re.search(r'<a class="src" href="([^"]+)" title="log.jsonl, line 4">-41</a>', text)
    assert found is not None
    source = (seed_report.html.parent / found.group(1)).resolve()
    assert json.loads(source.read_text().splitlines()[3])["Training Metrics"]["Actor Answer Log Probs"] == -41.0


def test_only_settings_that_differ_are_compared(seed_report: ReportResult) -> None:
    with open(next(p for p in seed_report.tables if p.stem == "settings")) as file:
        rows = list(csv.DictReader(file))
    assert "use_ppo" in rows[0]
    assert {row["run"]: row["use_ppo"] for row in rows}["arc/run1"] == "True"
    with open(next(p for p in seed_report.tables if p.stem == "settings-common")) as file:
        common = {row["setting"]: row["value"] for row in csv.DictReader(file)}
    assert common["lora.rank"] == "8"
    assert "lora.rank" not in rows[0]


def test_the_csv_of_accuracies(seed_report: ReportResult) -> None:
    with open(next(p for p in seed_report.tables if p.stem == "accuracy")) as file:
        rows = {(row["run"], row["extractor"]): row for row in csv.DictReader(file)}
    assert rows[("native", "anchor (main)")]["best"] == "0.7"
    assert rows[("native", "anchor (main)")]["base"] == "0.1"
    assert rows[("gsm8k/run1", "reported")]["published"] == "0.571"
    assert rows[("gsm8k/run1", "reported")]["n"] == "1319"
    assert "gsm8k_results_llama.jsonl:1" in rows[("gsm8k/run1", "reported")]["source"]


def test_the_milestones_of_the_seed(seed_report: ReportResult) -> None:
    with open(next(p for p in seed_report.tables if p.stem == "milestones")) as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "arc/run1" and row["metric"] == "ratio_mean"]
    assert [(row["step"], row["value"]) for row in rows] == [
        ("0", "1.0"), ("99", "1.1719"), ("999", "21.75"), ("2999", "26.25"), ("5999", "8.125"),
    ]  # fmt: skip


def test_the_markdown_and_its_figures(seed_report: ReportResult) -> None:
    text = seed_report.markdown.read_text()
    assert text.startswith("# Training report\n\n**1 of 6 runs collapsed")
    for heading in (
        "Verdicts",
        "Settings",
        "Accuracy from the CoT alone",
        "Learning curves and rewards",
        "Milestones",
        "Samples",
    ):
        assert f"\n## {heading}" in text
    paths = re.findall(r"!\[[^\]]*\]\((figures/[\w-]+\.svg)\)", text)
    assert len(paths) >= 8
    for path in paths:
        assert (seed_report.html.parent / path).read_text().startswith("<svg")
    assert "</script" not in text


# --- hostile texts -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    folder = tmp_path_factory.mktemp("hostile")
    samples: list[dict[str, Any]] = [
        sample_row(i + 1, question=t, cot=t, baseline_cot=t, answer=t[:200], answered=t[:200]) for i, t in enumerate(HOSTILE)
    ]
    bad = json.dumps(HOSTILE[0])[1:-1].replace("'", "")
    evals = [eval_row(100, 0.5, extractors={HOSTILE[1]: {"accuracy": 0.5, "ci95": [0.4, 0.6], "no_answer": 0.0}})]
    run = write_native(folder / "runs" / "<b>run & 'co'", samples=samples, evals=evals, config=CONFIG + f'note: "{bad}"\n')
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 301, HOSTILE[0]: 1.0, "loss": HOSTILE[1]}) + "\n")
    with open(run / "events.jsonl", "a") as file:
        file.write(json.dumps({"kind": HOSTILE[0], "step": "</script>", "message": None}) + "\n")
    return write_report([folder / "runs"], folder / "out")


def test_hostile_texts_do_not_get_out_of_their_place(hostile_report: ReportResult) -> None:
    page = parsed(hostile_report.html)
    assert page.tags["script"] == 3
    assert "img" not in page.tags
    assert page.loads == []
    text = hostile_report.html.read_text()
    visible = without_scripts(text)
    assert "<script>document" not in visible
    assert "<b>run" not in visible
    assert html.escape("<b>run") in visible
    assert "49" not in re.findall(r"\{\{.*?\}\}", visible)
    data = text[text.index('id="data">') + 10 :]
    data = data[: data.index("</script>")]
    assert "<" not in data
    assert "\u2028" not in data
    found = json.loads(data)
    assert found["samples"][0]["cot"] == HOSTILE[0]  # as it was, only written safely


def test_a_line_of_100_kb_is_cut_with_a_note(hostile_report: ReportResult) -> None:
    assert hostile_report.html.stat().st_size < 3_000_000
    assert "cut here; samples.jsonl, line 8" in hostile_report.html.read_text()


def test_hostile_texts_in_markdown_and_csv(hostile_report: ReportResult) -> None:
    text = hostile_report.markdown.read_text()
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<script", outside)
    assert "![x](http" not in outside
    with open(next(p for p in hostile_report.tables if p.stem == "samples"), newline="") as file:
        cots = [row["cot"] for row in csv.DictReader(file)]
    assert not any(c.startswith("=") for c in cots)
    assert any(c.startswith("'=HYPERLINK") for c in cots)


def test_escaping() -> None:
    assert json.loads(script_json({"a": "</script><!--", "b": [float("nan"), float("inf"), 1.0]})) == {
        "a": "</script><!--",
        "b": [None, None, 1.0],
    }
    assert escaped("a|b\n<c>*") == "a\\|b \\<c\\>\\*"
    assert fenced("a\n```\nb").startswith("````text\n")
    assert [number_text(v) for v in (0.0, 1e-7, 12345678.0, float("nan"), 21.75)] == [
        "0",
        "1e-07",
        "1.23e+07",
        "not finite",
        "21.75",
    ]


# --- figures -----------------------------------------------------------------------------------------------------------


def test_no_spike_is_lost() -> None:
    steps = np.arange(50_000, dtype=float)
    values = np.sin(steps / 500)
    values[[7, 12_345, 49_990]] = [50.0, -40.0, 30.0]
    x, y = decimate(steps, values, 200)
    assert len(x) <= 400
    assert {50.0, -40.0, 30.0} <= set(y.tolist())
    assert (np.diff(x) > 0).all()
    assert x[y == 50.0][0] == 7


def test_packed_rows_unpack_to_the_same() -> None:
    rows = [{"run": "a", "v": 1}, {"run": "b", "v": None}, {"run": "a"}]
    found = packed(rows)
    assert found == {"n": 3, "columns": {"run": {"texts": ["a", "b"], "index": [0, 1, 0]}, "v": [1, None, None]}}


def test_axes_are_logarithmic_where_needed(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "a", change=lambda s: {"grad_norm": 1e5 if s == 150 else 1.0})
    figures = {f.name: f for f in curves(diagnose_paths([folder]))}
    scales = {
        name: figures[name].spec["layer"][0]["encoding"]["y"]["scale"].get("type") for name in ("grad_norm", "answer_logprob")
    }
    assert scales == {"grad_norm": "log", "answer_logprob": None}
    assert "log scale" in figures["grad_norm"].spec["title"]["text"]
    assert "nats/token" in figures["entropy"].title


def test_a_refused_specification_is_told_and_the_next_is_drawn(tmp_path: Path) -> None:
    figure = curves(diagnose_paths([write_native(tmp_path / "a")]))[0]
    with Drawers(1) as drawers:
        bad, good = drawers.svg({"mark": 7}, {}), drawers.svg(for_print(figure, []), PRINT_CONFIG)
        with pytest.raises(DrawingFailed):
            bad.result()
        assert good.result().startswith("<svg")


def test_a_report_draws_with_helpers_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As users' reports do; the other tests share one helper (support/drawing.py). Both write the same."""
    run = write_native(tmp_path / "run", steps=20)
    kept = write_report([run], tmp_path / "kept")
    started: list[Drawers] = []

    class Watched(Drawers):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    monkeypatch.setattr(build, "Drawers", Watched)
    own = write_report([run], tmp_path / "real")
    assert all(helper.returncode == 0 for helper in started[0]._started)
    assert 1 <= len(started[0]._started) <= 2
    figures = sorted(path.name for path in (tmp_path / "real" / "figures").iterdir())
    assert figures
    for name in figures:
        real, shared = ((folder / "figures" / name).read_text() for folder in (tmp_path / "real", tmp_path / "kept"))
        assert re.sub(r"clip\d+", "clip", real) == re.sub(r"clip\d+", "clip", shared)  # Vega numbers them through
    assert len(own.html.read_text()) == len(kept.html.read_text())


# --- many runs, running runs, wrong places -----------------------------------------------------------------------------


@pytest.mark.slow
def test_two_hundred_runs(tmp_path: Path) -> None:
    crash = {"answer_logprob": -20.0, "reward_mean": -20.0}
    for i in range(200):
        change = (lambda s: dict(crash) if s > 30 else {}) if i % 50 == 7 else None
        write_native(tmp_path / "runs" / f"run-{i:03d}", steps=60, change=change, samples=[sample_row(s) for s in range(1, 40)])
    result = write_report([tmp_path / "runs"], tmp_path / "out")
    text = result.html.read_text()
    assert result.runs == 200
    assert "4 of 200 runs collapsed, 196 are healthy" in text
    assert 'id="find-run"' in text
    assert result.html.stat().st_size < 12_000_000
    shown = first_shown(result.diagnoses)
    assert len(shown) == 12
    assert shown[:4] == ["run-007", "run-057", "run-107", "run-157"]


def test_a_run_in_progress_is_read_and_left_alone(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "run", steps=50)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    stop = threading.Event()

    def train() -> None:
        with open(folder / "metrics.jsonl", "a") as file:
            step = 51
            while not stop.is_set():
                file.write(json.dumps(metric_row(step)) + "\n")
                file.flush()
                step += 1
                stop.wait(0.001)

    writer = threading.Thread(target=train)
    writer.start()
    try:
        verdict_names = {diagnose_paths([folder])[0].verdict for _ in range(5)}
        result = write_report([folder], tmp_path / "out")
    finally:
        stop.set()
        writer.join()
    assert verdict_names == {"healthy"}
    assert result.steps >= 50
    after = {p: p.read_bytes() for p in before}
    assert all(after[p].startswith(data) for p, data in before.items())


def test_one_bad_file_does_not_fail_the_others(tmp_path: Path) -> None:
    good = write_native(tmp_path / "good")
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\xfe\x00" * 100)
    result = write_report([tmp_path / "bad.jsonl", good], tmp_path / "out")
    assert [d.verdict for d in result.diagnoses] == ["unknown", "healthy"]
    assert "bad.jsonl: not a log" in result.html.read_text()


def test_a_report_without_rows(tmp_path: Path) -> None:
    result = write_report([write_native(tmp_path / "a", steps=0, samples=[], evals=[])], tmp_path / "out")
    text = result.html.read_text()
    assert "Nothing can be said about the run yet." in text
    assert "No run has metrics to draw." in text
    assert "No samples" in text


def test_what_a_collapse_cost_is_on_the_page_and_in_the_markdown(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    rows = [{"step": s, "reward": 0.8 if s < 40 else 0.0, "loss": 0.1, "step_time": 90.0} for s in range(1, 81)]
    log.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    result = write_report([log], tmp_path / "out")
    assert "<b>Cost</b> 41 of 80 steps since step 40: 1.0 of 2.0 hours, 51 % of the time</p>" in result.html.read_text()
    assert "**Cost**: 41 of 80 steps since step 40: 1.0 of 2.0 hours, 51 % of the time." in result.markdown.read_text()


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    run = write_native(tmp_path / "a")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a directory"):
        write_report([run], tmp_path / "file")
    with pytest.raises(UserError, match="a directory"):
        write_report([run], tmp_path / "file" / "below")


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_native(tmp_path / "a")
    result = write_report([run], tmp_path / "out")
    before = result.html.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_report([run], tmp_path / "out")
    assert result.html.read_bytes() == before
    assert not list((tmp_path / "out").rglob(".*.tmp"))


def test_a_second_report_into_the_same_directory(tmp_path: Path) -> None:
    run = write_native(tmp_path / "a")
    first = write_report([run], tmp_path / "out")
    again = write_report([run], tmp_path / "out")
    assert first.html == again.html
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_to_csv_has_full_values(tmp_path: Path) -> None:
    table = verdicts(diagnose_paths([write_native(tmp_path / "a")]))
    rows = list(csv.reader(to_csv(table).splitlines()))
    assert rows[0][:3] == ["verdict", "run", "task"]
    assert rows[1][:4] == ["healthy", "a", "arithmetic", "300"]
