"""Client: the blocking client of the framing ``pysock``.

This file owns the conversation: who may use the connection when, and what becomes of pushes and of the server's
goodbye. What a call goes through has a file each in ``calls/``; the bytes are the link's, in the engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from pysock.access.peers import Ids
from pysock.address import AddressLike, as_address
from pysock.base import kinds
from pysock.base.deadlines import checked_timeout, deadline_of, time_left
from pysock.base.forking import own
from pysock.base.functions import checked_function
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING, overload
from pysock.base.payload import SERVERS_LIMIT, checked
from pysock.calls.handshake import Handshake, Trust
from pysock.calls.heartbeat import Heartbeat, checked_heartbeat, period
from pysock.calls.mailbox import PUSHES_MAX, Mailbox
from pysock.calls.ping import Pong, ping
from pysock.calls.reader import PushReader
from pysock.calls.selfcall import refuse_own_loop
from pysock.calls.stream import too_many
from pysock.calls.streaming import Streaming
from pysock.engine.link import Link, nothing_sent
from pysock.errors import ConnectionLost, ProtocolError, PysockError, RemoteError, RequestTimeout
from pysock.parameters import checked_deadline, checked_linger, checked_most
from pysock.replies.current import shortened
from pysock.wire.features import client_features
from pysock.wire.format import FLAG_NO_REPLY, LARGEST_PING, Kind

if TYPE_CHECKING:
    from typing import Any, Final, Literal, NoReturn, TypeVar

    from pysock.answering.services import ClientServices
    from pysock.calls.answers import Answerer

    PushHook = TypeVar("PushHook", bound=Callable[[bytes], Any])
    Result = TypeVar("Result")

#: How long the goodbye may take, in seconds.
_GOODBYE: Final = 1.0


class Client(Streaming):
    """One connection to a server. Usable by several threads at a time; and in a ``with`` statement.

    All timeouts are in seconds. ``timeout=None`` means the one given to :func:`connect`, ``math.inf`` waits for ever.
    Each call may raise :class:`~pysock.errors.ConnectionLost` (a ``ConnectionResetError``) and
    :class:`ProtocolError`; the client is closed then. Made by :func:`connect`, whose parameters these are.

    Close it: one that is thrown away open closes its connection with a ``ResourceWarning``. In a forked child it is
    closed, and the parent's goes on.
    """

    _instead = "connect() once more"
    _hook: Callable[[bytes], Any] | None = None
    _answerer: Answerer | None = None  # what runs its services
    _elsewhere = False  # this is a forked child, and it is the parent's

    def __init__(
        self,
        address: AddressLike,
        name: str | None = None,
        *,
        timeout: float | None = 10.0,
        backend: kinds.BackendName = "auto",
        linger: float | None = None,
        max_payload: int = 16 * 1024 * 1024,
        max_pushes: int = 10_000,
        authkey: bytes | None = None,
        server_uid: Ids | None = None,
        deadline: kinds.Deadline = "inherit",
        heartbeat: float | None = None,
        services: kinds.ClientServices | None = None,
        tls: kinds.TLS | None = None,
        proxy: kinds.Proxy | None = None,
    ) -> None:
        checked_most(max_payload, max_pushes)
        heartbeat, linger = checked_heartbeat(heartbeat), checked_linger(linger)
        self._inherits = checked_deadline(deadline)
        self._address = as_address(address)
        self._timeout = None if timeout is None else checked_timeout(timeout)
        self._name = name or ""
        trust = Trust.of(self._address, server_uid, authkey, tls, proxy)
        engine = trust.engine(backend)
        self._backend = engine.name
        answers = None if services is None else self._prepared(services)
        handshake = Handshake(self._address, self._timeout, trust, client_features(answers is not None))
        self._link, welcome = handshake.open(self._name, engine.link, linger=linger, max_payload=max_payload)
        self._beside = handshake.beside
        self._tls = handshake.info
        self._introduced(welcome)
        self._most = max_payload
        self._window = max(1, welcome.max_in_flight or 1)
        self._closing = False
        self._ended = "this client is closed: connect() again"
        self._mail = Mailbox(repr(self), max_pushes)
        self._heart = Heartbeat(period(heartbeat, self._address, welcome.idle_timeout), self._mail)
        self._reader: PushReader | None = None
        if answers is not None:
            self._answer_by(answers)
        self._mail.take_over(self._link.inbox)
        self._link.inbox = self._mail
        if answers is not None:
            self._read_on()
        own(self)

    # What is known

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, from whichever side, as far as this end has noticed."""
        return self._link.closed

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
        """Send a request and wait for the reply.

        :param service: the name of the service; ``None`` is the unnamed one.
        :param idempotent: it may be run twice. A client that connects again makes use of it, as of ``wait``: ``False``
            fails at once where there is no connection.
        :raises RemoteError: the server answered with an error; with code 2 if it has no such service.
        :raises RequestTimeout: no reply in time. The client stays usable, unless the request was left half sent: that
            closes it.
        :raises FrameTooLarge: the payload is over the server's :attr:`max_payload`.
        """
        number = 0 if service is None else self._services.number(service)
        if type(payload) is not bytes or len(payload) > self._max_payload:  # else a call is saved
            payload = checked(payload, self._max_payload, SERVERS_LIMIT)
        if self._beside is not None:
            refuse_own_loop(self._beside)
        if number in self._services.streaming:
            whole = self._timeout if timeout is None else timeout
            return self._stream(number, payload, whole, timeout).join(self._most)
        return self._call(timeout, self._link.request, number, payload)

    @overload
    def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        *,
        return_exceptions: Literal[False] = False,
        idempotent: bool = False,
        wait: bool = True,
    ) -> list[bytes]: ...
    @overload
    def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        *,
        return_exceptions: bool,
        idempotent: bool = False,
        wait: bool = True,
    ) -> list[bytes | RemoteError]: ...
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
        """Send many requests without waiting in between; return the replies in the order of the requests.

        :param timeout: for all of them together.
        :param return_exceptions: put a :class:`RemoteError` in the list in place of the reply. Otherwise the first one
            is raised, when all answers are in.
        :param idempotent: they may be run twice: see :meth:`request`, also for ``wait``.
        :raises RemoteError: as said.
        :raises RequestTimeout: not all replies came in time. The client stays usable, unless a request was left half
            sent: that closes it.
        :raises FrameTooLarge: a payload is over the server's :attr:`max_payload`; nothing was sent.
        """
        number, all_payloads = self._services.number(service), list(payloads)
        if self._beside is not None:
            refuse_own_loop(self._beside)
        replies, errors = self._call(
            timeout,
            lambda seconds: self._link.request_many(number, all_payloads, self._max_payload, seconds, self._window),
        )
        if errors and (late := [one for one in replies if isinstance(one, RequestTimeout)]):
            raise late[0]  # the server was faster to say so
        if errors:
            replies = [self._services.telling(one) if isinstance(one, RemoteError) else one for one in replies]
        if errors and not return_exceptions:
            raise next(reply for reply in replies if isinstance(reply, RemoteError))
        return replies

    def notify(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, *, wait: bool = True
    ) -> None:
        """Send a request that isn't answered, not even with an error.

        :raises RemoteError: the server has no such service.
        :raises RequestTimeout: the server took it too slowly; the client is closed if that left a frame half sent.
        :raises FrameTooLarge: the payload is over the server's :attr:`max_payload`.
        """
        number, data = self._services.number(service), checked(payload, self._max_payload, SERVERS_LIMIT)
        link = self._link
        self._call(timeout, lambda left: link.send(Kind.SRM, number, link.next_request_id(), data, left, FLAG_NO_REPLY))

    def ping(self, payload: kinds.Buffer = b"", timeout: float | None = None, *, wait: bool = True) -> Pong:
        """Ask for a sign of life; return the seconds there and back, a number whose ``state`` is the server's.

        :param payload: at most 64 bytes, which the server sends back.
        :raises RequestTimeout: no answer in time. The client stays usable.
        """
        data = checked(payload, LARGEST_PING, "a ping's limit")
        if self._beside is not None:
            refuse_own_loop(self._beside)
        return self._call(timeout, ping, self._link, data)

    # Pushes

    def on_push(self, hook: PushHook) -> PushHook:
        """Register ``hook(payload)`` for what the server sends unasked. The decorator returns it unchanged.

        It is called after the call in which the push arrived, in that call's thread; while nobody is in a call, in a
        thread that this client has for it from now on, until it is closed. It may use this client. What it raises is
        logged. Without a hook pushes are kept for :meth:`pushes`. Under gevent or eventlet there is no such thread
        where it would keep the program's other green threads from running.
        """
        checked_function("hook", hook, "hook(payload)", "this client's hooks are plain functions")
        self._hook = hook
        self._mail.hooked = True
        if self._reader is None and not self._elsewhere:
            self._read_on()
        return hook

    def _read_on(self) -> None:
        self._reader = PushReader(self, self._link, self._mail, self._backend, self._heart, self._answerer)

    def _prepared(self, services: kinds.ClientServices) -> ClientServices:
        from pysock.calls.answers import prepared  # noqa: PLC0415  # most clients have none

        return prepared(services, self, self._backend)

    def _answer_by(self, services: ClientServices) -> None:
        from pysock.calls.answers import Answerer  # noqa: PLC0415  # as above

        self._answerer = Answerer(services, self._link, self._max_payload, self._timeout)
        self._mail.asked = self._answerer.append

    def pushes(self, timeout: float | None = None) -> Iterator[bytes]:
        """Yield what the server sends unasked, as it comes: for a client that listens.

        :param timeout: seconds after which the generator ends; ``None`` is never, here. With 0 it yields what has come
            already.
        :raises ConnectionLost: the connection ended without a goodbye, or because one side heard nothing for too long.
            After the server's goodbye, and after :meth:`close`, the generator just ends; :attr:`ended` tells which.
        """
        seconds = None if timeout is None else checked_timeout(timeout)
        return self._pushes(seconds, deadline_of(seconds))

    def _pushes(self, seconds: float | None, deadline: float | None) -> Iterator[bytes]:
        looks = PUSHES_MAX if seconds == 0 else 0  # without waiting; an end to it, however fast the server is
        while True:
            while (payload := self._mail.take(self._gap)) is not None:
                yield payload
            left = time_left(deadline)
            if left == 0:
                looks -= 1
            if looks < 0 or not self._listen(left):
                return

    def _listen(self, left: float | None) -> bool:
        """Wait for something to come; ``False`` when nothing more will."""
        if self._elsewhere:
            raise ConnectionLost(self._ended)
        if self._closing:
            return False
        if self._beside is not None and left != 0:
            refuse_own_loop(self._beside)
        try:
            self._heart.listen(self._link, left)
        except RequestTimeout:
            return left != 0  # another thread's call may have brought something
        except ConnectionLost as error:
            if not self._closing and (self._mail.goodbye is None or (self._mail.timed_out and not self._mail)):
                self._lost(error)
            return bool(self._mail)
        return True

    # The end

    def close(self) -> None:
        """Say goodbye and close. Waits for other threads' calls to end. Called again it does nothing.

        :raises PysockError: it is called by a signal's handler in the middle of a call of this client.
        """
        if self._elsewhere:
            return
        before, self._closing = self._closing, True
        try:
            self._link.drain()
        except PysockError:
            self._closing = before
            raise
        self._mail.over("left")
        if not self._link.closed:
            with suppress(ConnectionError, RequestTimeout):
                self._link.send(Kind.BYE, 0, 0, b"", _GOODBYE)
            self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: a forked child, the connection is the parent's. The link closes itself."""
        if not self._closing:
            self._ended = f"this client {why}"
        self._mail.over("lost", self._ended)
        self._closing = self._elsewhere = True

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        link: Link | None = getattr(self, "_link", None)  # it may never have been connected
        if link is None or link.closed or self._elsewhere:
            return
        try:
            if hasattr(self, "_mail"):  # else its __init__ was interrupted
                warn(f"unclosed {self!r}", ResourceWarning, source=self)
        finally:  # where warnings are errors
            link.close()

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<Client {shown(self._id)}{name} {'closed' if self.closed else 'connected'} {self._address}>"

    # Common to all calls

    def _call(self, timeout: float | None, call: Callable[..., Result], *arguments: Any) -> Result:
        """Make one call of the link, which is given the time that there is for it as the last argument."""
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if self._inherits:
            seconds = shortened(seconds)
        mail = self._mail
        if self._closing or mail.goodbye is not None or self._link.closed:
            raise nothing_sent(self._farewell() or mail.lost or self._ended)
        if len(mail.streams) >= self._window:
            raise too_many(self._window)
        if self._answerer is not None:
            self._answerer.relieve()
        return self._within(call, *arguments, seconds)

    def _within(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """The same without asking whether the connection is fit for it."""
        mail = self._mail
        mail.calls.append(None)
        try:
            return call(*arguments)
        except ConnectionLost as error:
            self._lost(error)
        except RemoteError as error:
            raise self._services.telling(error) from None
        except (ProtocolError, RequestTimeout) as error:
            if self.closed:
                mail.over("lost", str(error))
            raise
        finally:
            mail.calls.pop()
            if self._hook is not None:
                mail.deliver(self._hook, self._gap)  # now that this thread is in no call: the hook may want to make one

    def _lost(self, error: ConnectionLost) -> NoReturn:
        """The connection ended within a call. If the server had said goodbye, or what is wrong, say so."""
        reason = self._farewell() or self._mail.blamed(error)
        self._mail.over("lost", reason or str(error))
        if reason is None:
            raise error
        lost = ConnectionLost(reason)
        lost.fates = self._mail.fates(error)
        raise lost from error

    def _farewell(self) -> str | None:
        return None if self._closing else self._mail.farewell()
