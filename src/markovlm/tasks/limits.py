"""A limit on the processor time of a call, so that what is left out does not depend on how busy the machine is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class OutOfTime(BaseException):
    """The limit is reached. No `Exception`, so that no library's `except Exception` takes it for an error of its own."""


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """`OutOfTime` after so many seconds of the process's own processor time.

    No limit outside the main thread, to which signals belong, or where there is no such signal (Windows).
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
