"""HealingClient: a blocking client that connects again. This file owns what a program sees of it.

It is a plain client for each connection, one after the other; ``connections.py`` has them, and ``verdict.py`` knows
what may be sent again.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from pysock.balance.targets import rounded
from pysock.base import kinds
from pysock.base.clock import monotonic
from pysock.base.deadlines import checked_timeout, deadline_of, time_left
from pysock.base.forking import own
from pysock.base.functions import checked_function
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.calls.mailbox import PUSHES_MAX
from pysock.calls.stream import LaterStream
from pysock.client import Client
from pysock.errors import ConnectionLost, RemoteError, RequestTimeout
from pysock.healing.connections import Connections
from pysock.healing.keeper import start_keeping
from pysock.healing.known import Known
from pysock.healing.many import Many
from pysock.healing.policy import Backoff, Bucket
from pysock.healing.session import QUIET
from pysock.healing.verdict import Sending, says_goodbye
from pysock.parameters import checked_deadline
from pysock.replies.current import shortened

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from pysock.address import Address
    from pysock.balance.balancer import Balancer
    from pysock.calls.ping import Pong
    from pysock.calls.stream import Stream
    from pysock.healing.session import Session

    Hook = TypeVar("Hook", bound=Callable[..., Any])
    Result = TypeVar("Result")


class HealingClient(Known, Client):
    """A client of one server, by one connection after the other. Made by :func:`pysock.connect` with ``reconnect=``."""

    def __init__(
        self,
        balancer: Balancer,
        name: str | None,
        backoff: Backoff,
        wait: float | None,
        options: dict[str, Any],
    ) -> None:
        seconds = options["timeout"]
        self._timeout = None if seconds is None else checked_timeout(seconds)
        self._inherits = checked_deadline(options["deadline"])
        self._balancer = balancer
        self._name = name or ""
        self._bucket = Bucket()
        options = self._answering(options)
        make = partial(_plain, name, options, self._timeout)
        self._connections = Connections(balancer, backoff, make, self._timeout)
        own(self)
        first = self._timeout if wait is None else wait
        end = deadline_of(None if first == math.inf else first)
        self._id = self._connections.first(end, whole=wait is not None).client.id
        if options["services"] is not None:
            start_keeping(self._connections)

    def _answering(self, options: dict[str, Any]) -> dict[str, Any]:
        """On each connection its services are called with this client."""
        services = options["services"]
        if services is None:
            return options
        from pysock.answering.services import ClientServices  # noqa: PLC0415  # most clients have none

        made = ClientServices(services, waits=False)
        made.owner = weakref.ref(self)
        return {**options, "services": made}

    # What is known

    def _life(self) -> Connections:
        return self._connections

    @property
    def address(self) -> Address:
        """Where the newest connection leads to."""
        newest = self._connections.newest
        return self._balancer.wanted()[0] if newest is None else newest.address

    @property
    def dropped_pushes(self) -> int:
        """How many pushes nobody took; not those that came to no connection."""
        newest = self._connections.newest
        return self._connections.dropped + (0 if newest is None else newest.dropped_pushes)

    @property
    def missed_pushes(self) -> int:
        """How many pushes servers have dropped because it read too slowly; not those that came to no connection."""
        newest = self._connections.newest
        return self._connections.missed + (0 if newest is None else newest.missed_pushes)

    def _newest(self) -> Client:
        newest = self._connections.newest
        return self._connections.usable(deadline_of(self._timeout)).client if newest is None else newest

    # Requests

    def request(
        self,
        payload: kinds.Buffer,
        service: str | None = None,
        timeout: float | None = None,
        *,
        idempotent: bool = False,
        wait: bool = True,
    ) -> bytes:
        """As :meth:`Client.request`; what wasn't run goes over the next connection.

        :raises OutcomeUnknown: the connection ended, the request may have been run, and may not be run twice.
        """
        # What nothing is wrong with costs little more than on a plain client.
        began, connections = monotonic(), self._connections
        session, sending = connections.current, None
        if session is not None and began - session.heard < QUIET:
            try:
                reply = session.client.request(payload, service, timeout)
            except (ConnectionLost, RemoteError) as error:
                sending = Sending(self._bucket, idempotent, began)
                self._failed(error, session, sending, service, idempotent)
            except BaseException:
                connections.note(session)
                raise
            else:
                session.heard = monotonic()
                if session is not connections.current or self._bucket.tokens < Bucket.MOST:
                    self._answered(session)
                return reply
        return self._send(
            self._end(timeout, began),
            service,
            idempotent,
            wait,
            lambda client, left: client.request(payload, service, left),
            sending,
        )

    def stream(
        self,
        payload: kinds.Buffer,
        service: str | None = None,
        timeout: float | None = None,
        *,
        idempotent: bool = False,
        wait: bool = True,
    ) -> Stream:
        """As :meth:`Client.stream`; the request is sent when the first piece is asked for. Until that has come it is
        treated as others are; one that gave a piece is never begun again.
        """
        whole = None if timeout is None else checked_timeout(timeout)

        def begin() -> tuple[Stream, bytes | None]:
            return self._send(self._end(timeout, monotonic()), service, idempotent, wait, first)

        def first(client: Client, left: float) -> tuple[Stream, bytes | None]:
            stream = client.stream(payload, service, None if whole is None else left)
            return stream, next(stream, None)

        return LaterStream(begin)

    def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        *,
        return_exceptions: bool = False,
        idempotent: bool = False,
        wait: bool = True,
    ) -> list[Any]:
        """As :meth:`Client.request_many`; with ``return_exceptions`` an :class:`OutcomeUnknown` may be in the list."""
        many = Many(payloads, Sending(self._bucket, idempotent), return_exceptions)
        end = self._end(timeout, monotonic())
        while many.places:
            session = self._connections.usable(end, wait)
            client = session.client
            many.sending.idempotent = idempotent or client._services.is_idempotent(service)
            try:
                answers: list[Any] = client.request_many(many.next(), service, _left(end), return_exceptions=True)
            except ConnectionLost as error:
                self._connections.note(session)
                many.cut_short(error, client.id)
            except BaseException:
                self._connections.note(session)
                raise
            else:
                pause = many.answered(answers, client.id)
                session.heard = monotonic()
                if session is not self._connections.current:
                    self._connections.sweep()
                if any(says_goodbye(one) for one in answers):
                    self._leave(session)
                if pause:
                    self._connections.sleep(pause)
        return many.all()

    def notify(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, *, wait: bool = True
    ) -> None:
        """As :meth:`Client.notify`. What the kernel has taken counts as sent, and isn't sent again."""

        def call(client: Client, left: float) -> None:
            try:
                client.notify(payload, service, left)
            except ConnectionLost as error:
                error.fates = []  # it would have returned, had all of it been taken
                raise

        self._send(self._end(timeout, monotonic()), service, False, wait, call)

    def ping(self, payload: kinds.Buffer = b"", timeout: float | None = None, *, wait: bool = True) -> Pong:
        """As :meth:`Client.ping`."""
        end = self._end(timeout, monotonic())
        return self._send(end, None, True, wait, lambda client, left: client.ping(payload, left))

    def _send(
        self,
        end: float | None,
        service: str | None,
        idempotent: bool,
        wait: bool,
        call: Callable[[Client, float], Result],
        sending: Sending | None = None,
    ) -> Result:
        sending = sending or Sending(self._bucket, idempotent)
        while True:
            session = self._connections.usable(end, wait)
            try:
                result = call(session.client, _left(end))
            except (ConnectionLost, RemoteError) as error:
                self._failed(error, session, sending, service, idempotent)
            except BaseException:
                self._connections.note(session)
                raise
            else:
                session.heard = monotonic()
                self._answered(session)
                return result

    def _failed(
        self,
        error: ConnectionLost | RemoteError,
        session: Session,
        sending: Sending,
        service: str | None,
        idempotent: bool,
    ) -> None:
        """Get ready to send it again; else what its caller is told is raised."""
        if says_goodbye(error):
            self._leave(session)
        self._connections.note(session)
        client = session.client
        sending.idempotent = idempotent or client._services.is_idempotent(service)
        pause = sending.after(error, client.id)
        if pause:
            self._connections.sleep(pause)

    def _answered(self, session: Session) -> None:
        self._bucket.answered()
        if session is not self._connections.current:
            self._connections.sweep()

    def _leave(self, session: Session) -> None:
        """The server has said so in an answer, if not by a goodbye."""
        self._connections.leave(session, "it takes no more requests")

    def _end(self, timeout: float | None, began: float) -> float | None:
        """When the time is over for a call that has begun then."""
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        left = None if seconds is None else max(0.0, began + seconds - monotonic())
        return deadline_of(shortened(left) if self._inherits else left)

    # Pushes

    def on_push(self, hook: Hook) -> Hook:
        """As :meth:`Client.on_push`. The hook goes over to the next connection, which a thread makes at once."""
        checked_function("hook", hook, "hook(payload)", "this client's hooks are plain functions")
        self._connections.equip = lambda client: client.on_push(hook)
        with suppress(ConnectionLost):
            self._connections.usable(None, wait=False).client.on_push(hook)
        start_keeping(self._connections)
        return hook

    def on_gap(self, hook: Hook) -> Hook:
        """As :meth:`Client.on_gap`. The hook goes over to the next connection."""
        super().on_gap(hook)
        self._connections.gap = hook
        if self._connections.newest is not None:
            self._connections.newest._gap = hook
        return hook

    def on_reconnect(self, hook: Hook) -> Hook:
        """Register ``hook(client)``, called with each new connection but the first, before waiting calls go on.

        Its own calls go over that connection. If it fails that is logged, and the client connects once more after a
        wait. The decorator returns it unchanged.
        """
        checked_function("hook", hook, "hook(client)", "this client's hooks are plain functions")
        reference = weakref.ref(self)

        def restore() -> None:
            client = reference()
            if client is not None:
                hook(client)

        self._connections.restore = restore
        return hook

    def _pushes(self, seconds: float | None, deadline: float | None) -> Iterator[bytes]:
        looks = PUSHES_MAX if seconds == 0 else 0
        while True:
            try:
                session = self._connections.usable(deadline)
            except RequestTimeout:
                return
            except ConnectionLost:
                if self.ended is not None and self.ended.how == "left":
                    return
                raise
            yield from self._pushes_of(session.client, deadline, looks)
            if time_left(deadline) == 0:
                return
            self._connections.note(session)

    def _pushes_of(self, client: Client, deadline: float | None, looks: int) -> Iterator[bytes]:
        """What comes on one connection, until the server says goodbye, or it ends."""
        while True:
            while (payload := client._mail.take(client._gap)) is not None:
                yield payload
            left = time_left(deadline)
            if left == 0:
                looks -= 1
            if looks < 0 or client._mail.goodbye is not None:
                return
            try:
                if not client._listen(left):
                    return
            except ConnectionLost:
                return

    # The end

    def close(self) -> None:
        """Say goodbye and close, for good. Waits for other threads' calls to end, but not for one that connects."""
        self._connections.close()

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: a forked child makes a connection of its own, when it needs one."""
        self._connections.forked()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        connections: Connections | None = getattr(self, "_connections", None)
        if connections is None or self.closed:
            return
        try:
            if hasattr(self, "_id") and connections.newest is not None:
                warn(f"unclosed {self!r}", ResourceWarning, source=self)
        finally:  # where warnings are errors
            connections.close()

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        newest = self._connections.newest
        number = f" {shown(newest.id)}" if newest is not None else ""
        return f"<Client{number}{name} {self._connections.state.name.lower()} {self.address}>"


def _plain(
    name: str | None, options: dict[str, Any], timeout: float | None, address: Address, left: float | None
) -> Client:
    """A client of one connection, for which so many seconds are left."""
    client = Client(address, name, **{**options, "timeout": rounded(left)})
    client._timeout = timeout  # of each call
    return client


def _left(end: float | None) -> float:
    left = time_left(end)
    return math.inf if left is None else left
