"""What becomes of the master sockets where clients move: they are left alone, and what a listener is must be known
before the loop runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.pure.listener import Listener

if TYPE_CHECKING:
    from pysock.engine.proxies import Proxies
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.transport import Transport


class MovingMasters(Unique, ABC):
    """What ``Masters`` has of it."""

    _core: Core
    _fds: list[tuple[int, bool, bool, Transport, Proxies | None]]
    _listeners: list[Listener]
    _interest: int
    _open: bool
    resume_at: float | None
    frozen: bool  # nobody is accepted for now

    @abstractmethod
    def _watch(self, interest: int) -> bool:
        """Wait for this at each, and say whether that could be done."""

    @abstractmethod
    def _sit(self, is_open: bool) -> None:
        """Tell other workers whether clients are accepted here."""

    def listeners(self) -> list[Listener]:
        """All of them, in the order in which they were added."""
        for index in range(len(self._listeners), len(self._fds)):
            fd, checked, prepared, transport, proxies = self._fds[index]
            self._listeners.append(
                Listener(
                    self._core, fd, index, checked=checked, prepared=prepared, transport=transport, proxies=proxies
                )
            )
        return self._listeners

    def forget_listeners(self) -> None:
        """The loop won't run: their descriptors are the caller's."""
        for listener in self._listeners:
            listener.sock.detach()
        self._listeners = []

    def freeze(self) -> None:
        """Accept nobody for now. Called again it does nothing."""
        if self._open:
            self._open, self.frozen, self.resume_at = False, True, None
            self._watch(0)
            self._sit(False)

    def thaw(self) -> None:
        """Accept again, if nothing but ``freeze`` is in the way."""
        if self.frozen:
            self.frozen = False
            if self._listeners:  # else the server stops
                self._open = True
                self._sit(True)
                if not self._watch(self._interest):
                    self.resume_at = self._core.now
