"""The report opened from disk in headless Chromium: figures, toggles, filters, themes, keyboard, narrow, print, hostile texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from markovlm.report import diagnose_paths, write_report
from markovlm.report.figures import calm, curves
from report.browser import CHROMIUM, DRIVER, Browser
from report.native import CONFIG, eval_row, sample_row, write_native
from report.seed import write_seed
from report.test_report import HOSTILE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="chromium and chromedriver are needed (Debian: chromium, chromium-driver)"
    ),
]
DRAWN = "return [...document.querySelectorAll('#curves .chart')].filter(c => c.dataset.drawn).length"
CARDS = "return [...document.querySelectorAll('.sample')].map(c => c.className + '|' + c.querySelector('header').textContent)"


def later(*values: object) -> object:
    """A case for `make test-long` alone."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    write_native(folder / "runs" / "native")
    samples = [sample_row(i + 1, question=t, cot=t, baseline_cot=t, answer="1") for i, t in enumerate(HOSTILE)]
    write_native(folder / "runs" / "<b>bold", samples=samples)
    write_seed(folder / "runs" / "seed")
    return write_report([folder / "runs"], folder / "out").html


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def browser(page: Path, window: Browser) -> Iterator[Browser]:
    """The page, fresh; at the end nothing was complained about and no text from a log ran."""
    window.resize(1280)
    window.open(page)
    window.complaints()
    yield window
    assert window.complaints() == []
    assert window.run("return document.body.dataset.hacked ?? null") is None


def set_field(browser: Browser, name: str, value: str) -> None:
    browser.run(
        "const f = document.querySelector(`#sample-filter [name=${arguments[0]}]`); f.value = arguments[1];"
        "f.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def draw_all(browser: Browser) -> None:
    """Scroll past every chart, so that it is drawn."""
    browser.run(
        "for (const c of document.querySelectorAll('.chart')) if (!c.hidden) {"
        "c.scrollIntoView({behavior: 'instant'}); await new Promise(done => requestAnimationFrame(() => setTimeout(done, 10))); }"
        "scrollTo(0, 0)"
    )
    browser.wait("return [...document.querySelectorAll('.chart')].every(c => c.hidden || c.dataset.drawn)")


def test_the_first_screen_says_which_run_collapsed(browser: Browser) -> None:
    first = browser.run(
        "const r = document.querySelector('#runs-table tbody tr'); return [r.textContent, r.getBoundingClientRect().bottom]"
    )
    assert "collapsed" in first[0]
    assert "arc/run1" in first[0]
    assert first[1] < 900
    assert "arc/run1" in browser.run("return document.querySelector('.verdict-row').textContent")


def test_every_figure_is_drawn(browser: Browser) -> None:
    draw_all(browser)
    assert browser.run("return [...document.querySelectorAll('.chart')].every(c => c.querySelector('canvas'))")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("return [...document.querySelectorAll('details.run')].every(d => d.open)")


def test_runs_toggle(browser: Browser, tmp_path: Path) -> None:
    browser.run("document.querySelector('#curves .chart').scrollIntoView({behavior: 'instant'})")
    browser.wait("return document.querySelector('#curves .chart').dataset.drawn === 'yes'")
    assert browser.run("return document.body.dataset.shown") == "7"
    browser.run("document.querySelector('[data-pick=none]').click()")
    assert browser.run("return document.body.dataset.shown") == "0"
    assert browser.run("return [...document.querySelectorAll('#curves .chart')].every(c => c.hidden)")
    assert browser.run("return document.querySelector('#curves .nothing-shown').hidden") is False
    browser.run("document.querySelector('#run-toggles input[value=native]').click()")
    assert browser.run("return document.body.dataset.shown") == "1"
    assert browser.run("return document.querySelector('#curves .nothing-shown').hidden") is True


COLOURED = """
const rare = (c) => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
  for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 120 && Math.max(d[i], d[i + 1], d[i + 2]) - Math.min(d[i], d[i + 1], d[i + 2]) > 40) n++;
  return n; };
return [...document.querySelectorAll('#curves .chart')].filter(c => !c.hidden).map(c => [c.dataset.figure, rare(c.querySelector('canvas'))])
"""


@pytest.mark.parametrize("chosen", [later(["arc/run1"]), later(["gsm8k/run1", "svamp/run1"]), ["native"]])
def test_no_selection_shows_an_empty_frame(browser: Browser, chosen: list[str]) -> None:
    draw_all(browser)
    browser.run(
        "for (const box of document.querySelectorAll('#run-toggles .toggle input')) box.checked = arguments[0].includes(box.value);"
        "document.querySelector('.toggle input').dispatchEvent(new Event('change', {bubbles: true}));"
        "return new Promise(done => setTimeout(done, 500))",
        chosen,
    )
    draw_all(browser)
    drawn = dict(browser.run(COLOURED))
    assert len(drawn) >= 4
    assert {name for name, ink in drawn.items() if ink < 30} == set()
    assert ("accuracy" in drawn) == (chosen == ["native"])


def test_runs_toggle_by_keyboard(browser: Browser) -> None:
    browser.run("document.querySelector('#run-toggles input[value=native]').focus()")
    browser.keys(" ")
    assert browser.run("return document.body.dataset.shown") == "6"
    browser.keys("\ue004")  # tab: the next run
    assert browser.run("return document.activeElement.matches('#run-toggles input') && document.activeElement.value !== 'native'")


def test_samples_filter(browser: Browser) -> None:
    assert len(browser.run(CARDS)) == 12
    set_field(browser, "run", "native")
    count = browser.run("return document.querySelector('#sample-count').textContent")
    assert count == "30 samples, 12 shown, right in 30 of the 30 that were judged"
    set_field(browser, "outcome", "right")
    set_field(browser, "from", "100")
    set_field(browser, "to", "200")
    cards = browser.run(CARDS)
    assert len(cards) == 11
    assert all("✓ right" in c and c.startswith("sample right|native") for c in cards)
    set_field(browser, "order", "best")
    assert "step 200" in browser.run(CARDS)[0]
    set_field(browser, "order", "worst")
    assert "step 100" in browser.run(CARDS)[0]
    set_field(browser, "text", "21+150")
    assert ["step 150" in c for c in browser.run(CARDS)] == [True]
    assert browser.run("return [...document.querySelectorAll('.sample mark')].map(m => m.textContent)") == ["171"]


def test_more_samples(browser: Browser) -> None:
    set_field(browser, "run", "native")
    browser.run("document.querySelector('#more-samples').click()")
    assert len(browser.run(CARDS)) == 24
    browser.run("document.querySelector('#more-samples').click()")
    assert len(browser.run(CARDS)) == 30
    assert browser.run("return document.querySelector('#more-samples').hidden")


def test_hostile_samples_are_shown_as_text(browser: Browser) -> None:
    set_field(browser, "run", "<b>bold")
    assert browser.run("return document.querySelectorAll('#sample-list img, #sample-list script, #sample-list b b').length") == 0
    texts = browser.run("return [...document.querySelectorAll('.sample .question')].map(q => q.textContent)")
    assert texts[:3] == HOSTILE[:3]


def test_themes(browser: Browser) -> None:
    def background() -> str:
        return browser.run("return getComputedStyle(document.body).backgroundColor")

    light = background()
    button = "document.querySelector('#theme').click(); return document.querySelector('#theme').textContent"
    assert browser.run(button) == "Theme: light"
    assert background() == light
    assert browser.run(button) == "Theme: dark"
    assert background() != light
    assert browser.run(button) == "Theme: auto"
    assert background() == light


def test_links_open_what_they_point_at(browser: Browser) -> None:
    browser.run("document.querySelectorAll('.verdict-row .name')[3].click()")
    browser.wait("const t = document.getElementById(location.hash.slice(1)); return t.open")


@pytest.mark.parametrize("section", [later("curves"), later("milestones"), later("rewards"), "samples"])
def test_links_land_where_they_point(browser: Browser, section: str) -> None:
    browser.run("document.querySelector(`nav a[href='#${arguments[0]}']`).click()", section)
    browser.run("return new Promise(done => setTimeout(done, 700))")  # charts on the way are drawn meanwhile
    top = browser.run("return document.getElementById(arguments[0]).getBoundingClientRect().top", section)
    assert abs(top - 3.2 * 16) <= 2


@pytest.mark.long
def test_an_address_with_a_target_lands_on_it(browser: Browser, page: Path) -> None:
    browser.run("location.hash = '#samples'; location.reload()")
    browser.wait("return document.body.dataset.ready === 'yes' && document.readyState === 'complete'")
    browser.run("return new Promise(done => setTimeout(done, 500))")
    assert abs(browser.run("return document.getElementById('samples').getBoundingClientRect().top") - 3.2 * 16) <= 2


POINT = """
const chart = document.querySelector(`.chart[data-figure=${arguments[0]}]`), canvas = chart.querySelector('.canvas');
const box = canvas.getBoundingClientRect();
const at = (x, y) => ({bubbles: true, button: 0, clientX: box.left + box.width * x, clientY: box.top + box.height * y});
for (const [kind, x, y] of arguments[1]) canvas.dispatchEvent(new PointerEvent(kind, at(x, y)));
await new Promise(done => setTimeout(done, 120));
return chart.querySelector('.readout')?.innerText ?? ''
"""


def only_native(browser: Browser) -> None:
    browser.run(
        "document.querySelector('[data-pick=none]').click(); document.querySelector('#run-toggles input[value=native]').click();"
        "return new Promise(done => setTimeout(done, 300))"
    )


def show_chart(browser: Browser, name: str) -> None:
    browser.run("document.querySelector(`.chart[data-figure=${arguments[0]}]`).scrollIntoView({block: 'center'})", name)
    browser.wait(f"return document.querySelector('.chart[data-figure={name}]').dataset.drawn === 'yes'")
    browser.run("return new Promise(done => setTimeout(done, 300))")


def test_one_step_is_read_in_all_charts(browser: Browser) -> None:
    show_chart(browser, "entropy")
    text = browser.run(POINT, "entropy", [["pointermove", 0.5, 0.4]])
    assert "native" in text
    assert "0.6" in text
    crosses = browser.run("return [...document.querySelectorAll('.cross')].filter(c => !c.hidden).length")
    assert crosses >= 3


def test_the_page_smooths_as_python_does(browser: Browser) -> None:
    logs = Path(browser.run("return decodeURI(location.pathname)")).parents[1] / "runs"
    figure = next(f for f in curves(diagnose_paths([logs])) if f.name == "answer_logprob")
    line = next(line for line in figure.lines if line.run == "native")
    browser.run(
        "document.querySelector('[data-pick=none]').click(); document.querySelector('#run-toggles input[value=native]').click()"
    )
    show_chart(browser, "answer_logprob")
    text = browser.run(POINT, "answer_logprob", [["pointermove", 0.3, 0.1]])
    step = int(re.findall(r"step ([\d,]+)", text)[0].replace(",", ""))
    near = [i for i, x in enumerate(line.steps) if abs(x - step) <= 1]
    expected = {f"{calm(line)[i]:.4g}" for i in near}
    assert expected & set(text.split())


def test_a_click_brings_a_run_forward_and_leads_to_its_samples(browser: Browser) -> None:
    show_chart(browser, "entropy")
    browser.run(POINT, "entropy", [["pointermove", 0.6, 0.4], ["pointerdown", 0.6, 0.4], ["pointerup", 0.6, 0.4]])
    told = browser.run("return document.querySelector('#in-front').innerText")
    assert "bold" in told or "native" in told
    assert "entropy" in told
    browser.run("document.querySelector('.toggle[data-run=native] .front').click()")
    assert "native" in browser.run("return document.querySelector('#in-front').innerText")
    browser.run("document.querySelector('.toggle[data-run=native] .front').click()")
    assert browser.run("return document.querySelector('#in-front').innerText") == ""
    only_native(browser)
    show_chart(browser, "entropy")
    browser.run(POINT, "entropy", [["pointermove", 0.5, 0.4], ["pointerdown", 0.5, 0.4], ["pointerup", 0.5, 0.4]])
    step = int(re.findall(r"step ([\d,]+)", browser.run("return document.querySelector('#in-front').innerText"))[0])
    browser.run("document.querySelector('#in-front .to-samples').click()")
    steps = [int(re.findall(r"step ([\d,]+)", text)[0]) for text in browser.run(CARDS)]
    assert abs(steps[0] - step) <= 5  # one sample every ten steps
    assert [abs(s - step) for s in steps] == sorted(abs(s - step) for s in steps)
    assert all("|native" in text for text in browser.run(CARDS))


@pytest.mark.long
def test_a_drag_zooms_all_charts(browser: Browser) -> None:
    show_chart(browser, "entropy")
    before = browser.run(POINT, "entropy", [["pointermove", 0.95, 0.4]])
    drag = [["pointerdown", 0.3, 0.4], ["pointermove", 0.4, 0.4], ["pointermove", 0.6, 0.4], ["pointerup", 0.6, 0.4]]
    browser.run(POINT, "entropy", drag)
    after = browser.run(POINT, "kl", [["pointermove", 0.95, 0.4]])
    first = [int(re.findall(r"step ([\d,]+)", text)[0].replace(",", "")) for text in (before, after)]
    assert first[1] < 0.75 * first[0]
    browser.run("document.querySelector('#whole').click()")
    assert browser.run("return document.querySelector('#whole').hidden")


@pytest.mark.long
def test_charts_are_read_by_keyboard(browser: Browser) -> None:
    show_chart(browser, "entropy")
    browser.run("document.querySelector('.chart[data-figure=entropy] .canvas').focus()")
    browser.keys("\ue014\ue014\ue007")  # right, right, enter
    assert "entropy" in browser.run("return document.querySelector('#in-front').innerText")
    browser.keys("\ue00c")
    assert browser.run("return document.querySelector('#in-front').innerText") == ""


def test_each_sample_has_a_link(browser: Browser) -> None:
    set_field(browser, "run", "native")
    href = browser.run("return document.querySelectorAll('.sample .link')[4].getAttribute('href')")
    text = browser.run("return document.querySelectorAll('.sample')[4].querySelector('header').innerText")
    browser.run("location.hash = arguments[0]; location.reload()", href)
    browser.wait("return document.body.dataset.ready === 'yes' && document.readyState === 'complete'")
    linked = browser.run(
        "const s = document.querySelector('.sample.linked'); return [s.querySelector('header').innerText, s.getBoundingClientRect().top]"
    )
    assert linked[0] == text
    assert 0 <= linked[1] < 200
    browser.run("location.hash = '#sample/no/such/1'")
    browser.wait("return document.querySelector('#sample-count').textContent.includes('not in this report')")


@pytest.mark.long
def test_samples_by_keyboard(browser: Browser) -> None:
    set_field(browser, "run", "native")
    browser.run("document.getElementById('samples').scrollIntoView()")
    for key in "jjjk":
        browser.run("dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))", key)
    assert browser.run("return [...document.querySelectorAll('.sample')].indexOf(document.activeElement)") == 1


@pytest.mark.parametrize(("width", "printed"), [(360, False), later(420, False), later(800, False), (718, True)])
def test_nothing_is_wider_than_the_window_or_the_paper(page: Path, window: Browser, width: int, printed: bool) -> None:
    window.resize(width, 800)
    window.open(page)
    draw_all(window)
    window.run("dispatchEvent(new Event('beforeprint'))")
    window.resize(width, 800, printed)
    window.run("return new Promise(done => setTimeout(done, 300))")
    sizes = window.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert sizes[0] <= sizes[1]
    if printed:  # nor in a box of its own that cannot be scrolled on paper
        cut = window.run(
            "return [...document.querySelectorAll('main td, main th, canvas, main .text')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))"
        )
        assert cut == []


# --- many runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen runs of two tasks: one collapsed, two that cannot be judged."""
    folder = tmp_path_factory.mktemp("many")
    crash = {"answer_logprob": -20.0, "reward_mean": -20.0}
    for i in range(14):
        task = "gsm8k" if i % 2 else "svamp"
        write_native(
            folder / "runs" / f"run-{i:02d}-{'x' * (60 if i == 5 else 1)}",
            steps=3 if i in (2, 9) else 40 + 10 * i,
            change=(lambda s: dict(crash) if s > 30 else {}) if i == 7 else None,
            samples=[],
            evals=[eval_row(40, 0.3 + 0.01 * i)] if i % 3 == 0 else [],
            config=CONFIG.replace("task: arithmetic", f"task: {task}"),
        )
    return write_report([folder / "runs"], folder / "out").html


ROWS = "return [...document.querySelectorAll('#runs-table tbody tr')].map(r => r.innerText.split('\\n')[0].split('\\t')[0])"


def test_the_table_of_runs_sorts_groups_and_folds(many: Path, window: Browser) -> None:
    window.resize(1280)
    window.open(many)
    rows = window.run(ROWS)
    assert rows[0].startswith("run-07")  # the collapsed first
    assert rows[-1] == "Show 2 runs that cannot be judged"
    assert len(rows) == 13
    window.run("document.querySelector('#runs-table tbody tr.group button').click()")
    assert sorted(name[:6] for name in window.run(ROWS)[-2:]) == ["run-02", "run-09"]
    window.run("document.querySelector('#runs-table th[data-column=\"3\"] button').click()")
    assert window.run(ROWS)[0].startswith("run-13")
    assert window.run("return document.querySelector('#runs-table th[data-column=\"3\"]').ariaSort") == "descending"
    window.run("const g = document.querySelector('#group-runs'); g.value = '0'; g.dispatchEvent(new Event('change'))")
    rows = window.run(ROWS)
    assert rows[0] == "gsm8k 6 runs"
    assert [name[:6] for name in rows[1:4]] == ["run-13", "run-11", "run-07"]


def test_find_a_run_filters_every_list(many: Path, window: Browser) -> None:
    window.resize(1280)
    window.open(many)
    window.run("const f = document.querySelector('.find-run'); f.value = 'run-1'; f.dispatchEvent(new Event('input'))")
    assert len(window.run(ROWS)) == 4
    visible = "return [...document.querySelectorAll('{}')].filter(e => e.offsetParent !== null).length"
    assert window.run(visible.format(".toggle")) == 4
    window.run("document.querySelector('[data-pick=all]').click()")
    assert window.run("return document.body.dataset.shown") == "4"
    assert window.run("return document.querySelectorAll('.find-run')[1].value") == "run-1"


@pytest.mark.long
def test_a_run_in_a_fold_is_opened_by_its_link(many: Path, window: Browser) -> None:
    window.resize(1280)
    window.open(many)
    window.run("[...document.querySelectorAll('#runs-table a')].find(a => a.textContent.startsWith('run-13')).click()")
    window.run("return new Promise(done => setTimeout(done, 400))")
    top = window.run("const t = document.getElementById(location.hash.slice(1)); return [t.open, t.getBoundingClientRect().top]")
    assert top[0] is True
    assert abs(top[1] - 3.2 * 16) <= 2
