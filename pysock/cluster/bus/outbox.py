"""What other threads want of a bus's thread, in order, and the one wake-up for all that has come since it looked.

It has a bound, so that publishing fails at once where the bus takes nothing more, rather than filling the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    Task: TypeAlias = tuple[Callable[..., object], tuple[Any, ...]]

#: Bytes of messages that wait to be sent, in here and with the driver.
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024
#: What a message costs beside its payload.
_OVERHEAD: Final = 128


class Outbox(Unique):
    """Tasks for the bus's thread.

    :param wake: have that thread call :meth:`take` soon; any thread calls this.
    :ivar unsent: bytes that the thread has taken, and the bus hasn't; the thread's.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._tasks: list[Task] = []
        self._bytes = 0
        self._is_awake = False
        self._is_closed = False
        self.unsent: int = 0

    def put(self, task: Task, size: int) -> bool:
        """Add a task with a message of so many bytes; ``False``: there is no room for it."""
        with self._lock:
            if self._is_closed or self._bytes + self.unsent > WAITING_BYTES_MAX:
                return False
            self._bytes += size + _OVERHEAD
            self._tasks.append(task)
            is_awake, self._is_awake = self._is_awake, True
        if not is_awake:
            self._wake()
        return True

    def command(self, function: Callable[..., object], *args: object) -> None:
        """Add a task that isn't a message: it always has room. When this is closed it is forgotten."""
        with self._lock:
            if self._is_closed:
                return
            self._tasks.append((function, args))
            is_awake, self._is_awake = self._is_awake, True
        if not is_awake:
            self._wake()

    def take(self) -> list[Task]:
        """All that has come; whoever puts something now wakes the thread again."""
        with self._lock:
            tasks, self._tasks = self._tasks, []
            self._bytes = 0
            self._is_awake = False
        return tasks

    def close(self) -> list[Task]:
        """What is left; nothing is taken from now on."""
        with self._lock:
            self._is_closed = True
        return self.take()
