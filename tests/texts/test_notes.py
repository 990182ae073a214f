"""How notes fare, as text and as a verdict."""

from __future__ import annotations

import pytest

from markovlm.health.monitor import HealthMonitor, judge
from markovlm.texts.notes import note_signals

CHUNKS = ["ann+3 bob+4", "bob-2 cat+1", "ann+2 cat+5", "bob+1 ann-1"]


@pytest.mark.parametrize(
    ("states", "frozen", "copied", "kept"),
    [
        (["ann=3 bob=4", "ann=3 bob=2 cat=1", "ann=5 bob=2 cat=6", "ann=4 bob=3 cat=6"], 0, 0, 1),
        (CHUNKS, 0, 1, (1 / 2 + 1 / 2 + 1 / 2) / 3),  # bob of ann bob; cat of bob cat; ann of ann cat
        (["busy day"] * 4, 1, 0, 1),
        (["one", "two", "three", "four"], 0, 0, 0),
        (["", "", "", ""], 1, None, None),
    ],
)
def test_signals_of_a_chain(states: list[str], frozen: float, copied: float | None, kept: float | None) -> None:
    found = note_signals(states, CHUNKS)
    assert found["notes_frozen"] == frozen
    assert found["notes_copied"] == copied
    assert found["notes_kept"] == pytest.approx(kept)


def test_the_same_state_after_the_same_chunk_is_not_frozen() -> None:
    """A chain that thinks reads its question again and again."""
    assert note_signals(["a", "a"], ["q", "q"])["notes_frozen"] is None


def test_a_single_state_says_nothing() -> None:
    assert note_signals(["a b"], ["q"]) == {"notes_frozen": None, "notes_copied": 0.0, "notes_kept": None}


HEALTHY = {"answer_logprob": -1.0, "notes_frozen": 0.1, "notes_copied": 0.2, "notes_overflow": 0.1, "notes_kept": 0.6}
BROKEN = {
    "frozen_notes": {"notes_frozen": 0.95},
    "copied_notes": {"notes_copied": 0.9},
    "overflowing_notes": {"notes_overflow": 1.0},
    "forgotten_notes": {"notes_kept": 0.0},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_notes_that_are_no_memory_are_a_warning(kind: str) -> None:
    rows = [{"step": step, **HEALTHY, **(BROKEN[kind] if step >= 50 else {})} for step in range(1, 80)]
    assert judge(rows[:45]).verdict == "healthy"
    verdict = judge(rows)
    assert verdict.verdict == "warn"
    assert [signal.kind for signal in verdict.signals] == [kind]
    assert verdict.onset_step == 50
    solved = [row | {"answer_correct_fraction": 0.9} for row in rows]
    assert judge(solved).verdict == "healthy"


def test_a_monitor_of_an_older_run_goes_on() -> None:
    """Its state has no alarms for rows of the table that came later."""
    monitor = HealthMonitor()
    for step in range(5):
        monitor.update({"step": step, "answer_logprob": -1.0})
    state = monitor.state_dict()
    without_the_last_rows = dict(list(state["alarms"].items())[:-4])
    for older in (without_the_last_rows, list(state["alarms"].values())[:-4]):  # once they had no names
        later = HealthMonitor()
        later.load_state_dict(state | {"alarms": older})
        assert later.update({"step": 6, "answer_logprob": -1.0}).rows == 6
