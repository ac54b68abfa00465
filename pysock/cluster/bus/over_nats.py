"""A node's end of a NATS bus, by the library nats-py, whose asyncio loop is this thread's.

Each connection is a client of nats-py of its own, which doesn't connect again by itself: nothing that was said to the
one before can be in it. Messages go past it: see ``nats_stream.py``. Requests have a number in the reply's subject, and
one subscription for all answers. What other threads publish is gathered, and written at once.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
from contextlib import suppress
from functools import partial

import nats.aio.client
import nats.errors

from pysock.base.forking import own_socket
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.cluster.bus.contract import Outcome
from pysock.cluster.bus.nats_stream import Stream, transport_of
from pysock.cluster.bus.outbox import WAITING_BYTES_MAX
from pysock.cluster.bus.reasons import explained
from pysock.cluster.bus.servers import without_secrets
from pysock.cluster.bus.spine import Spine

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.cluster.bus.nats_stream import Message
    from pysock.cluster.bus.routes import Route

#: Seconds for a connection, with its TLS and its first PING.
_CONNECT: Final = 3
#: Seconds between two attempts: at random, up to a span that doubles from the first to the last.
_SPANS: Final = (0.1, 5.0)
#: Seconds between two PINGs, and how many may be unanswered. The probe asks more, and is answered as late.
_PING_EVERY, _PINGS_MAX = 2, 2
#: Seconds for saying goodbye to a server that may have stopped.
_GOODBYE: Final = 0.5
#: Seconds in which a server may have cut this end as too slow.
_HELD_UP: Final = 0.25
#: How often it is looked whether a server takes something again, in seconds.
_LOOK_EVERY: Final = 0.05
#: What a NATS takes that nobody has changed.
_MAX_PAYLOAD: Final = 1024 * 1024
#: Of many that hear a queue, one does, among all that give the same name.
_QUEUE: Final = b"q"
#: What a NATS answers itself, where nobody hears a request.
_NOBODY: Final = b"NATS/1.0 503"
#: The subscription of all answers; the others have the next numbers.
_ANSWERS: Final = 1

_WRONG_USER: Final = "the server refuses this user: give the right one, nats://USER:PASSWORD@HOST or nats://TOKEN@HOST"
_NO_NATS: Final = "what listens there is no NATS: is the port right? A NATS has 4222"
#: What the library and the server say, in small letters, and what it means.
_MEANINGS: Final = {
    "authorization": _WRONG_USER,
    "authentication": _WRONG_USER,
    "permissions violation": (
        "the server allows this user too little: allow it to publish and to subscribe under {prefix}.>"
    ),
    "certificate": (
        "its certificate isn't trusted: add its authority to the system's, or to a file that SSL_CERT_FILE names"
    ),
    "expecting info": _NO_NATS,
    "json parse": _NO_NATS,
    "ssl": "TLS failed: is it tls:// at a port where TLS is spoken?",
}


class NatsBus(Spine):
    """See :class:`pysock.cluster.bus.contract.Bus`.

    :param servers: URLs, all of one NATS.
    """

    kind = "nats"

    def __init__(self, servers: list[str], node: str, prefix: str) -> None:
        self._servers = servers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner = 0
        self._client: nats.aio.client.Client | None = None
        self._trouble: Exception | None = None  # the last thing that the library has told
        self._why = ""  # told by whoever has given the connection up
        self._ended = asyncio.Event()
        self._stream: Stream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turn_is_due = False
        self._numbers: dict[Route, int] = {}  # of what is subscribed
        self._routes_by_number: dict[int, Route] = {}
        self._last_number = _ANSWERS
        self._headers = True
        self._was_held_up = False
        super().__init__(without_secrets(servers), node, prefix, _MAX_PAYLOAD)
        self._inbox = f"{prefix}._i.{self.token}.r.".encode()

    def another(self) -> NatsBus:
        """See :class:`Spine`."""
        return NatsBus(self._servers, self.node, self.prefix)

    def open(self) -> None:
        """See :class:`Spine`. The loop's selector has no descriptor, of which forked children would have copies."""
        self._loop = asyncio.SelectorEventLoop(selectors.PollSelector())

    def release(self) -> None:
        """See :class:`Spine`."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def wake(self) -> None:
        """See :class:`Spine`."""
        loop = self._loop
        if loop is None:
            return
        if threading.get_ident() == self._owner:
            self._soon()
        else:
            try:
                loop.call_soon_threadsafe(self._turn)
            except RuntimeError:  # it was closed just now
                return

    def findings(self) -> list[str]:
        """See :class:`Spine`."""
        if self._headers:
            return []
        return [
            f"{self.software} doesn't say that nobody hears a request, so that each waits in vain: run 2.2 or newer"
        ]

    # The thread

    def run(self) -> None:
        """See :class:`Spine`."""
        assert self._loop is not None
        self._owner = threading.get_ident()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            asyncio.set_event_loop(None)

    async def _live(self) -> None:
        self._soon()
        failures = 0
        while not self.is_closing:
            if await self._connect():
                failures = 0
                self._linked()
                await self._ended.wait()
                await self._disconnect()
            failures += 1
            await self._rest(min(_SPANS[1], _SPANS[0] * 2 ** min(failures, 20)))

    async def _rest(self, span: float) -> None:
        """Wait, but not longer than this lives."""
        self._ended.clear()
        if self.is_closing:
            return
        try:
            await asyncio.wait_for(self._ended.wait(), random.uniform(0.1, max(0.1, span)))  # noqa: S311
        except asyncio.TimeoutError:
            return

    async def _connect(self) -> bool:
        self._ended.clear()
        self._trouble, self._why = None, ""
        self._client = client = nats.aio.client.Client()
        connecting = asyncio.ensure_future(
            client.connect(
                self._servers,
                name=self.node,
                error_cb=self._on_error,
                closed_cb=self._on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_CONNECT,
                ping_interval=_PING_EVERY,
                max_outstanding_pings=_PINGS_MAX,
                pending_size=0,
            )
        )
        closing = asyncio.ensure_future(self._ended.wait())
        await asyncio.wait((connecting, closing), return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if not connecting.done():  # it is closed
            connecting.cancel()
            await asyncio.wait((connecting,), timeout=_GOODBYE)
            await self._disconnect()
            return False
        try:
            connecting.result()
        except (OSError, ValueError, nats.errors.Error, asyncio.TimeoutError) as error:
            why, refused = explained(self._cause(error), _MEANINGS, self.prefix)
            await self._disconnect()
            self.unlinked(why, refused=refused)
            return False
        return True

    def _cause(self, error: Exception) -> Exception:
        """Where no server is left to be tried, what was told of the last one."""
        return self._trouble or error if isinstance(error, nats.errors.NoServersError) else error

    def _linked(self) -> None:
        assert self._client is not None
        transport = transport_of(self._client)
        own_socket(transport.get_extra_info("socket")._sock)
        self._headers = bool(self._client._server_info.get("headers"))
        self.software: str = f"nats-server {self._client._server_info.get('version', '')}"
        self._numbers.clear()
        self._routes_by_number.clear()
        self._last_number = _ANSWERS
        self._stream = Stream(transport, self._came)
        self._stream.subscribe(_ANSWERS, self._inbox + b"*")
        self.linked(self._client.max_payload)
        self._soon()

    async def _disconnect(self) -> None:
        """Close the connection, though its server may take nothing."""
        client, self._client, self._stream = self._client, None, None
        if self._is_linked and not self._why and self._was_held_up:
            self.note_dropped()  # it was cut as too slow, as far as can be told
        self._was_held_up = False
        if self._why:
            self.unlinked(self._why)
        elif self._is_linked:
            why, refused = explained(self._trouble, _MEANINGS, self.prefix)
            self.unlinked(why, refused=refused)
        if client is None:
            return
        transport = transport_of(client)
        if transport is not None:
            transport.abort()  # else what a stopped server hasn't taken would keep it open
        with suppress(OSError, nats.errors.Error, asyncio.TimeoutError):
            await asyncio.wait_for(client.close(), _GOODBYE)

    def lose(self, why: str) -> None:
        """See :class:`Spine`."""
        self._why = why
        self.unlinked(why)
        self._ended.set()

    async def _on_closed(self) -> None:
        if self._client is not None:  # else it was closed by this end
            self._ended.set()

    async def _on_error(self, error: Exception) -> None:
        if "slow consumer" in str(error).lower():
            self.note_dropped()
        if "permissions violation" in str(error).lower():
            if self.token not in str(error):
                log.warning("the bus %s: %s", self.where, error)
                return
            self._ended.set()  # it can't even hear itself, which is explained by whoever disconnects
        self._trouble = error

    # Turns

    def _soon(self) -> None:
        """Have a turn, once for all that has come until then."""
        if not self._turn_is_due and self._loop is not None:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        assert self._loop is not None
        self._turn_is_due = False
        if self.is_closing:
            self._ended.set()
        self._note_unsent()
        wait = self.turn()
        if self._stream is not None:
            self._stream.flush()
        if self.outbox.unsent > WAITING_BYTES_MAX // 2:
            wait = _LOOK_EVERY if wait is None else min(wait, _LOOK_EVERY)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if wait is None else self._loop.call_later(wait, self._soon)

    def _note_unsent(self) -> None:
        """How much the server hasn't taken."""
        client = self._client
        if client is None:
            return
        unsent = client.pending_data_size
        transport = transport_of(client)
        if transport is not None:
            unsent += transport.get_write_buffer_size()
        self.outbox.unsent = unsent

    def send_publish(self, subject: bytes, payload: bytes) -> None:
        """See :class:`Spine`."""
        if self._stream is not None:
            self._stream.publish(subject, payload)

    def send_request(self, number: int, subject: bytes, payload: bytes) -> None:
        """See :class:`Spine`."""
        if self._stream is not None:
            self._stream.publish(subject, payload, b"%s%x" % (self._inbox, number))

    def send_answer(self, token: Any, payload: bytes) -> None:
        """See :class:`Spine`."""
        if self._stream is not None:
            self._stream.publish(token, payload)

    def send_subscribe(self, route: Route) -> None:
        """See :class:`Spine`."""
        if self._stream is not None and route not in self._numbers:
            self._last_number = number = self._last_number + 1
            self._numbers[route], self._routes_by_number[number] = number, route
            self._stream.subscribe(number, route[0], _QUEUE if route[1] else b"")

    def send_unsubscribe(self, route: Route) -> None:
        """See :class:`Spine`."""
        number = self._numbers.pop(route, None)
        if self._stream is not None and number is not None:
            del self._routes_by_number[number]
            self._stream.unsubscribe(number)

    # What comes

    def _came(self, message: Message) -> None:
        number, subject, reply, headers, payload = message
        if number == _ANSWERS:
            self._answered(subject, headers, payload)
            return
        route = self._routes_by_number.get(number)
        if route is None:
            return
        begin = self.clock()
        self.hear(route, payload, partial(self.answer, reply) if reply else None)
        if self.clock() - begin > _HELD_UP:
            self._was_held_up = True

    def _answered(self, subject: bytes, headers: bytes, payload: bytes) -> None:
        try:
            number = int(subject.rpartition(b".")[2], 16)
        except ValueError:
            return
        if not payload and headers.startswith(_NOBODY):
            self.ended(number, Outcome.NOBODY)
        else:
            self.ended(number, Outcome.ANSWERED, payload)
