"""A node's end of the local bus: a connection to the hub at a socket file; and the hub itself, where there is none.

A hub that dies leaves its socket file, and its lock to whoever takes it first. All its members notice at once; each
waits for a moment of its own, connects to who was faster, or becomes the hub.
"""

from __future__ import annotations

import os
import socket
from collections import deque

from pysock.access.peers import check_server
from pysock.base.forking import own_socket
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.cluster.bus.contract import Outcome
from pysock.cluster.bus.local import records as wire
from pysock.cluster.bus.local.hub import Hub
from pysock.cluster.bus.looped import NEAR, PATIENCE, Looped
from pysock.errors import AddressInUse, PysockError
from pysock.wire.framing import LENGTH, U32Cutter

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.address import Address
    from pysock.cluster.bus.routes import Route

#: So many connections may end before the hub has said a word.
_ENDS_MAX: Final = 3
#: Bytes that are read at once.
_READ_SIZE: Final = 256 * 1024


class LocalBus(Looped):
    """See :class:`pysock.cluster.bus.contract.Bus`.

    :param address: the hub's.
    """

    kind = "local"

    def __init__(self, where: str, address: Address, node: str, prefix: str) -> None:
        self._address = address
        self._hub: Hub | None = None
        self._id = 0  # this end's, at the hub; 0: it hasn't said so yet
        self._cutter = U32Cutter(wire.MESSAGE_MAX)
        self._records: list[bytes] = []
        self._buffer: deque[bytes | memoryview] = deque()
        super().__init__(where, node, prefix, wire.MAX_PAYLOAD)

    def another(self) -> LocalBus:
        """See :class:`Spine`."""
        made = LocalBus(self.where, self._address, self.node, self.prefix)
        made.is_guest = self.is_guest
        return made

    # The connection

    def attempt(self) -> None:
        """See :class:`Looped`. Where nobody listens, be the hub, and connect."""
        if self._hub is not None and not self._hub.is_serving:
            self._hub = None
        try:
            try:
                self._connect()
            except (FileNotFoundError, ConnectionRefusedError):
                if self.is_guest:
                    self.rest(NEAR)
                    self.lose(f"nobody is there: no node runs on the local bus at {self._address}")
                    return
                self._hub = Hub(self._address)
                self._connect()
        except AddressInUse as error:  # another one was faster, or has the lock and doesn't listen yet, or any more
            self.rest(NEAR)
            self.lose(f"{self._address}: {error}")
        except (OSError, PysockError) as error:
            self.give_up(f"{self._address}: {error}")

    def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            own_socket(sock)
            no_sigpipe(sock)
            sock.settimeout(PATIENCE)
            sock.connect(self._address.socket_file)
            check_server(sock, self._address, frozenset((os.geteuid(), 0)))
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        self.begin(sock)
        self._records.append(wire.node_hello(bytes.fromhex(self.token), self.node))

    def silence(self) -> str:
        """See :class:`Looped`."""
        return f"whoever listens at {self._address} doesn't answer: its process may have been stopped"

    def forget(self) -> None:
        """See :class:`Looped`."""
        self._id = 0
        self._cutter = U32Cutter(wire.MESSAGE_MAX)
        self._records.clear()
        self._buffer.clear()

    def done(self) -> None:
        """See :class:`Looped`."""
        if self._hub is not None:
            self._hub.stop()

    # What comes

    def read(self) -> None:
        """See :class:`Looped`."""
        assert self.sock is not None
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        try:
            for message in self._cutter.feed(data):
                self._message(message)
        except wire.BadRecord as error:
            self.give_up(f"what listens at {self._address} is no hub of a local bus: {error}")

    def _gone(self) -> None:
        """The connection has ended. A hub that goes may do so before its first word, too, but not every time."""
        if self._id or self.failures < _ENDS_MAX:
            self.rest(NEAR)
            self.lose("its hub has gone")
        else:
            self.give_up(
                f"who listens at {self._address} closes the connection at once: it is no hub of a local bus, or one of"
                " another user, and all nodes must run as one"
            )

    def _message(self, message: bytes) -> None:
        for record in wire.records(message):
            if self._id:
                self._record(record)
            elif self.sock is not None:
                self._welcomed(wire.read_hub(record))

    def _welcomed(self, welcome: wire.Welcome) -> None:
        if welcome.version != wire.VERSION:
            self.give_up(
                f"its hub is {welcome.software}, which speaks version {welcome.version} of the local bus and not"
                f" {wire.VERSION}: run one version of pysock on this machine, or restart the nodes one after the other"
            )
            return
        self._id = welcome.client_id
        self.welcome()
        self.software: str = welcome.software
        self.dropped: int = self.dropped + welcome.was_cut
        self.linked(welcome.max_payload)

    def _record(self, record: bytes) -> None:
        kind = record[0] & ~wire.QUEUED
        if kind == wire.ANSWER:
            asker, number = wire.asked(record)
            if asker == self._id:
                self.ended(number, Outcome.ANSWERED, wire.answer_payload(record))
        elif kind in {wire.PUBLISH, wire.REQUEST}:
            subject, end = wire.subject_end(record)
            asked = _Asked(self, wire.asked(record)) if kind == wire.REQUEST else None
            self.hear((subject, bool(record[0] & wire.QUEUED)), record[end:], asked)
        elif kind == wire.NOBODY:
            self.ended(wire.asked(record)[1], Outcome.NOBODY)

    # What goes

    def send_publish(self, subject: bytes, payload: bytes) -> None:
        """See :class:`Spine`."""
        self._records.append(wire.publish(subject, payload))

    def send_request(self, number: int, subject: bytes, payload: bytes) -> None:
        """See :class:`Spine`."""
        self._records.append(wire.request(self._id, number, subject, payload))

    def send_answer(self, token: Any, payload: bytes) -> None:
        """See :class:`Spine`."""
        asker, number = token
        self._records.append(wire.answer(asker, number, payload))

    def send_subscribe(self, route: Route) -> None:
        """See :class:`Spine`."""
        self._records.append(wire.route(wire.SUBSCRIBE, route))

    def send_unsubscribe(self, route: Route) -> None:
        """See :class:`Spine`."""
        self._records.append(wire.route(wire.UNSUBSCRIBE, route))

    def flush(self) -> None:
        """See :class:`Looped`."""
        self._gather()
        assert self.sock is not None
        try:
            while self._buffer:
                first = self._buffer[0]
                sent = self.sock.send(first, NO_SIGNAL)
                if sent == len(first):
                    self._buffer.popleft()
                else:
                    self._buffer[0] = memoryview(first)[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._gone()
            return
        self.outbox.unsent = sum(map(len, self._buffer))
        self.want(write=bool(self._buffer))

    def _gather(self) -> None:
        """Put records together into messages."""
        records, self._records = self._records, []
        gathered: list[bytes] = []
        size = 0
        for record in records:
            gathered.append(record)
            size += len(record)
            if size >= wire.GATHERED:
                self._buffer += (LENGTH.pack(size), b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            self._buffer.append(LENGTH.pack(size) + b"".join(gathered))


class _Asked:
    """Answers one request."""

    __slots__ = ("_bus", "_token")

    def __init__(self, bus: LocalBus, token: tuple[int, int]) -> None:
        self._bus = bus
        self._token = token

    def __call__(self, payload: bytes) -> None:
        """See ``Heard.answer``."""
        self._bus.answer(self._token, payload)
