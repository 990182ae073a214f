"""The report opened from disk in headless Chromium: figures, toggles, filters, themes, keyboard, narrow, print, hostile texts."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from markovlm.report import write_report
from report.browser import CHROMIUM, DRIVER, Browser
from report.native import sample_row, write_native
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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    write_native(folder / "runs" / "native")
    samples = [sample_row(i + 1, question=t, cot=t, baseline_cot=t, answer="1") for i, t in enumerate(HOSTILE)]
    write_native(folder / "runs" / "<b>bold", samples=samples)
    write_seed(folder / "runs" / "seed")
    return write_report([folder / "runs"], folder / "out").html


@pytest.fixture
def browser(page: Path) -> Iterator[Browser]:
    with Browser() as found:
        found.open(page)
        yield found
        assert found.errors() == []
        assert found.run("return document.body.dataset.hacked ?? null") is None


def set_field(browser: Browser, name: str, value: str) -> None:
    browser.run(
        "const f = document.querySelector(`#sample-filter [name=${arguments[0]}]`); f.value = arguments[1];"
        "f.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def ink(browser: Browser, path: Path) -> float:
    """Share of the first curve's pixels that are far from its background."""
    image = pytest.importorskip("PIL.Image")
    browser.run("document.querySelector('#curves .chart').scrollIntoView({behavior: 'instant'})")
    picture = image.open(io.BytesIO(browser.screenshot(path))).convert("L").crop((80, 60, 560, 300))
    counts = picture.histogram()
    background = counts.index(max(counts))
    return sum(n for level, n in enumerate(counts) if abs(level - background) > 40) / sum(counts)


def test_the_first_screen_is_the_verdict(browser: Browser, tmp_path: Path) -> None:
    first = browser.run(
        "const r = document.querySelector('.verdict-row'); return [r.textContent, r.getBoundingClientRect().bottom]"
    )
    assert "collapsed" in first[0]
    assert "arc/run1" in first[0]
    assert first[1] < 900
    browser.screenshot(tmp_path / "first.png")


def test_every_figure_is_drawn(browser: Browser) -> None:
    browser.run("document.querySelectorAll('.chart').forEach(c => c.scrollIntoView())")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    browser.wait("return document.querySelectorAll('.chart:not([data-drawn])').length === 0")
    assert browser.run("return document.querySelectorAll('.chart canvas').length") == browser.run(
        "return document.querySelectorAll('.chart').length"
    )
    assert (
        browser.run("return [...document.querySelectorAll('.canvas')].filter(c => c.textContent.includes('not be drawn')).length")
        == 0
    )
    assert browser.run("return [...document.querySelectorAll('details.run')].every(d => d.open)")


def test_runs_toggle(browser: Browser, tmp_path: Path) -> None:
    browser.run("document.querySelector('#curves .chart').scrollIntoView({behavior: 'instant'})")
    browser.wait("return document.querySelector('#curves .chart').dataset.drawn === 'yes'")
    all_shown = ink(browser, tmp_path / "all.png")
    assert browser.run("return document.body.dataset.shown") == "7"
    browser.run("document.querySelector('[data-pick=none]').click()")
    assert browser.run("return document.body.dataset.shown") == "0"
    browser.run("return new Promise(done => setTimeout(done, 400))")
    none_shown = ink(browser, tmp_path / "none.png")
    browser.run("document.querySelector('#run-toggles input[value=native]').click()")
    assert browser.run("return document.body.dataset.shown") == "1"
    browser.run("return new Promise(done => setTimeout(done, 400))")
    one_shown = ink(browser, tmp_path / "one.png")
    assert none_shown < one_shown
    assert none_shown < all_shown


def test_runs_toggle_by_keyboard(browser: Browser) -> None:
    browser.run("document.querySelector('#run-toggles input[value=native]').focus()")
    browser.keys(" ")
    assert browser.run("return document.body.dataset.shown") == "6"
    browser.keys("\ue004")  # tab: the next run
    assert browser.run("return document.activeElement.matches('#run-toggles input') && document.activeElement.value !== 'native'")


def test_samples_filter(browser: Browser) -> None:
    assert len(browser.run(CARDS)) == 12
    set_field(browser, "run", "native")
    assert browser.run("return document.querySelector('#sample-count').textContent") == "30 samples, 12 on show"
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


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_windows_do_not_scroll_sideways(page: Path, width: int, tmp_path: Path) -> None:
    with Browser(width, 800) as browser:
        browser.open(page)
        browser.run("dispatchEvent(new Event('beforeprint'))")
        browser.wait("return document.querySelectorAll('.chart:not([data-drawn])').length === 0")
        sizes = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        browser.screenshot(tmp_path / "narrow.png")
        assert sizes[0] <= sizes[1]
