"""What a client that connects again knows: why it has ended for good, and else what its newest connection knows."""

from __future__ import annotations

from collections.abc import Mapping

from pysock.base.lean import TYPE_CHECKING
from pysock.calls.introduced import Introduced
from pysock.healing.machine import State

if TYPE_CHECKING:
    from pysock.calls.ended import Ended
    from pysock.healing.life import Life
    from pysock.tls.info import TLSInfo


class Known(Introduced):
    """The part of both healing clients that does no I/O, in front of what a plain client knows."""

    def _life(self) -> Life:
        """Of its connections."""
        raise NotImplementedError

    def _newest(self) -> Introduced:
        """The plain client of the newest connection."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether it has ended for good: closed, refused, or not wanted back."""
        return self._life().state is State.CLOSED

    @property
    def ended(self) -> Ended | None:
        """Why it has ended for good; ``None`` as long as it goes on, connected or not."""
        return self._life().over

    @property
    def id(self) -> int:
        """The client id that the server gave to the newest connection: each has one of its own."""
        return self._newest().id

    @property
    def tls(self) -> TLSInfo | None:
        """What came of the TLS handshake of the newest connection. ``None`` where there is no TLS."""
        return self._newest().tls

    @property
    def services(self) -> Mapping[str, int]:
        """The server's named services: name -> number, as the newest connection knows them."""
        return self._newest().services

    @property
    def server_software(self) -> str:
        """What the server calls itself; empty if it didn't say."""
        return self._newest().server_software

    @property
    def max_payload(self) -> int:
        """The largest request in bytes that the server takes."""
        return self._newest().max_payload
