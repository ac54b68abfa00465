"""SIGTERM and SIGINT while a server runs in the main thread: the first drains, the second ends at once.

This file owns the process's handlers for the time of the ``with`` statement, and puts back what was there before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[Callable[[int], None]]:
    """Call ``stop()`` at the first signal. A second one raises ``KeyboardInterrupt`` (SIGINT) or ``SystemExit(143)``
    (SIGTERM) inside whatever runs then.

    Outside of the main thread nothing is done, because Python gives no signals to other threads. A signal that is
    being ignored, as SIGINT in a shell's background job, stays ignored.

    The value is a function to call with the descriptor that a signal shall write a byte to, to end the loop's wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda _: None
        return
    came = False

    def handle(number: int, frame: FrameType | None) -> None:
        # No logging here: the main thread may be inside a write to the same stream.
        nonlocal came
        if came:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        came = True
        stop()

    def wake_by(fd: int) -> None:
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

    taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = signal.set_wakeup_fd(-1)  # the only way to ask for it
    signal.set_wakeup_fd(before)
    handlers = [(number, signal.signal(number, handle)) for number in taken]
    try:
        yield wake_by
    finally:
        for number, handler in handlers:
            # None: it wasn't installed from Python, so it can't be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(before)
