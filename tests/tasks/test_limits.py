"""What takes too much processor time is stopped, and what waits is not."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from markovlm.tasks import answers
from markovlm.tasks.limits import OutOfTime, processor_limit


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        try:
            sum(range(1000))
        except Exception:  # a library's own net must not catch the limit
            continue


def test_processor_time_is_limited_and_waiting_is_not() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with processor_limit(0.05):
        time.sleep(0.2)  # a busy machine
    with pytest.raises(OutOfTime), processor_limit(0.05):
        spin(5)
    spin(0.1)  # nothing is left armed
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_another_thread_is_not_limited() -> None:
    done: list[bool] = []

    def call() -> None:
        with processor_limit(0.01):
            spin(0.1)
        done.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert done == [True]


def test_an_answer_that_takes_too_long_to_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MATH_VERIFY_SECONDS", 0.05)
    monkeypatch.setattr(answers, "_library", lambda: (lambda *a, **k: spin(5), lambda *a, **k: spin(5)))
    assert answers.extract(r"so \frac{1}{2} of it", "math_verify") is None
    monkeypatch.setattr(answers, "_math_verify_parse", lambda text: [text])
    assert not answers._math_verify_equal("42", "43")
