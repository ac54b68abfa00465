"""What a client knows once it has been let in, whichever kind of client it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pysock.address import Address
from pysock.base.functions import checked_function
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.calls.ended import Ended
from pysock.calls.mailbox import Mailbox
from pysock.calls.named import NamedServices
from pysock.errors import PysockError
from pysock.limits import LARGEST_PAYLOAD
from pysock.wire.cir import Welcome

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from pysock.tls.info import TLSInfo

    GapHook = TypeVar("GapHook", bound=Callable[[int], Any])


class Introduced(Unique):
    """The part of both clients that does no I/O."""

    _address: Address
    _name: str
    _mail: Mailbox
    _gap: Callable[[int], Any] | None = None
    _tls: TLSInfo | None = None

    def _introduced(self, welcome: Welcome) -> None:
        """Take what the server says of itself."""
        self._id = welcome.client_id
        self._services = NamedServices(welcome.services, welcome.options)
        self._software = welcome.software
        self._features = welcome.features
        self._stream_window = welcome.stream_window
        self._max_payload = LARGEST_PAYLOAD if welcome.max_payload is None else welcome.max_payload

    @property
    def ended(self) -> Ended | None:
        """Why the connection has ended, or why the server says that it will; ``None`` as long as this end knows of
        neither. ``.how`` is ``"left"``, ``"goodbye"``, ``"timed out"`` or ``"lost"``, ``.reason`` says more.
        """
        return self._mail.ended

    def on_reconnect(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """For a client that connects again.

        :raises PysockError: this one doesn't.
        """
        raise PysockError("this client doesn't connect again: give connect() reconnect=True")

    @property
    def id(self) -> int:
        """The client id that the server gave."""
        return self._id

    @property
    def name(self) -> str:
        """The name given to ``connect()``; empty if none was."""
        return self._name

    @property
    def address(self) -> Address:
        """Where it is connected to."""
        return self._address

    @property
    def tls(self) -> TLSInfo | None:
        """What came of the TLS handshake, and who the server is by its certificate. ``None`` where there is no TLS."""
        return self._tls

    @property
    def services(self) -> Mapping[str, int]:
        """The server's named services: name -> number."""
        return MappingProxyType(self._services.numbers)

    @property
    def server_software(self) -> str:
        """What the server calls itself, e.g. ``pysock/0.1.0``; empty if it didn't say."""
        return self._software

    @property
    def max_payload(self) -> int:
        """The largest request in bytes that the server takes."""
        return self._max_payload

    def on_gap(self, hook: GapHook) -> GapHook:
        """Register ``hook(lost)``, called just before a push is taken, with how many before it the server has dropped
        because this client read too slowly (``Server(slow=...)``). Who takes that push calls it, by ``on_push`` or
        ``pushes()``. What it raises is logged. The decorator returns it unchanged.
        """
        checked_function("hook", hook, "hook(lost)", "this client's hooks are plain functions")
        self._gap = hook
        return hook

    @property
    def missed_pushes(self) -> int:
        """How many pushes the server has dropped because this client read too slowly, as far as it has said so."""
        return self._mail.missed

    @property
    def dropped_pushes(self) -> int:
        """How many pushes nobody took, so that they were thrown away (``max_pushes``). The first one is logged."""
        return self._mail.dropped
