"""A limit on the processor time of a call, so that the result does not depend on how busy the machine is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class OutOfTime(BaseException):
    """The limit is reached. Not an `Exception`, so that a library's `except Exception` does not catch it."""


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` after so many seconds of the process's own processor time.

    There is no limit outside the main thread, which alone gets signals, or on a system without such a signal (Windows).
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
