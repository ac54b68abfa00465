"""Client: the blocking client of the framing ``pysock``.

This file owns the conversation: who may use the connection when, and what becomes of pushes and of the server's
goodbye. How a connection comes about is in ``connecting.py``; the bytes are the link's, in the engine.
"""

# ruff: noqa: PLC0415, PLW0603  # see _take_parts()

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType

from pysock.base.lean import TYPE_CHECKING, overload
from pysock.base.unique import Unique
from pysock.errors import ConnectionLost, ParameterError, ProtocolError, PysockError, RemoteError, RequestTimeout

if TYPE_CHECKING:
    from typing import Any, Final, Literal, NoReturn, TypeVar

    from pysock.access.peers import Ids, expected_server
    from pysock.address import Address, AddressLike, as_address
    from pysock.base import kinds
    from pysock.base.aliases import Buffer
    from pysock.base.clock import monotonic
    from pysock.base.deadlines import checked_timeout, deadline_of, time_left
    from pysock.base.forking import own
    from pysock.base.functions import checked_function
    from pysock.base.ids import shown
    from pysock.base.payload import SERVERS_LIMIT, checked
    from pysock.connecting import Trust, open_link
    from pysock.engine.choice import choose
    from pysock.engine.contract import BUSY, Link
    from pysock.limits import LARGEST_PAYLOAD
    from pysock.mailbox import PUSHES_MAX, Mailbox
    from pysock.parameters import checked_linger
    from pysock.selfcall import refuse_own_loop
    from pysock.wire.format import FLAG_NO_REPLY, LARGEST_PING, TEXT_NO_SUCH_SERVICE, ErrorCode, Frame, Kind

    PushHook = TypeVar("PushHook", bound=Callable[[bytes], Any])
    Result = TypeVar("Result")

#: While it waits for pushes, a thread lets others use the connection so often, in seconds.
_SLICE: Final = 0.05

#: How long the goodbye may take, in seconds.
_GOODBYE: Final = 1.0


class Client(Unique):
    """One connection to a server. Usable by several threads, one call at a time; and in a ``with`` statement.

    All timeouts are in seconds. ``timeout=None`` means the one given to :func:`connect`, ``math.inf`` waits for ever.
    Each call may raise :class:`~pysock.errors.ConnectionLost` (a ``ConnectionResetError``) and
    :class:`ProtocolError`; the client is closed then. Made by :func:`connect`, whose parameters these are.

    Close it: one that is thrown away open closes its connection with a ``ResourceWarning``. In a forked child it is
    closed, and the parent's goes on.
    """

    _instead = "connect() once more"
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
    ) -> None:
        _take_parts()
        if not 0 < max_payload <= LARGEST_PAYLOAD:
            raise ParameterError("max_payload", f"must be from 1 to {LARGEST_PAYLOAD}, not {max_payload!r}")
        if not isinstance(max_pushes, int) or max_pushes < 1:
            raise ParameterError("max_pushes", f"must be a number from 1 on, not {max_pushes!r}")
        self._address = as_address(address)
        self._timeout = None if timeout is None else checked_timeout(timeout)
        self._name = name or ""
        trust = Trust(expected_server(self._address, server_uid), None if authkey is None else _checked_key(authkey))
        self._link, welcome, self._beside = open_link(
            self._address,
            self._name,
            choose(backend).link,
            self._timeout,
            linger=checked_linger(linger),
            max_payload=max_payload,
            trust=trust,
        )
        self._id = welcome.client_id
        self._numbers = {name: number for name, number in welcome.services.items() if name}
        self._software = welcome.software
        self._max_payload = LARGEST_PAYLOAD if welcome.max_payload is None else welcome.max_payload
        self._window = max(1, welcome.max_in_flight or 1)
        # Re-entrant only because such a lock knows whose it is, which typeshed doesn't.
        self._lock: Any = threading.RLock()
        self._waiting = 0  # threads that want the lock; only a hint, so it needs no lock itself
        self._closing = False
        self._ended = "this client is closed: connect() again"
        self._mail = Mailbox(repr(self), max_pushes)
        own(self)

    # What is known

    @property
    def id(self) -> int:
        """The client id that the server gave."""
        return self._id

    @property
    def name(self) -> str:
        """The name given to :func:`connect`; empty if none was."""
        return self._name

    @property
    def address(self) -> Address:
        """Where it is connected to."""
        return self._address

    @property
    def services(self) -> Mapping[str, int]:
        """The server's named services: name -> number."""
        return MappingProxyType(self._numbers)

    @property
    def server_software(self) -> str:
        """What the server calls itself, e.g. ``pysock/0.1.0``; empty if it didn't say."""
        return self._software

    @property
    def max_payload(self) -> int:
        """The largest request in bytes that the server takes."""
        return self._max_payload

    @property
    def dropped_pushes(self) -> int:
        """How many pushes were thrown away because nobody took them, see ``max_pushes`` of :func:`connect`. The first
        one is logged.
        """
        return self._mail.dropped

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, from whichever side, as far as this end has noticed."""
        return self._link.closed

    # Requests

    def request(self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None) -> bytes:
        """Send a request and wait for the reply.

        :param service: the name of the service; ``None`` is the unnamed one.
        :raises RemoteError: the server answered with an error; with code 2 if it has no such service.
        :raises RequestTimeout: no reply in time. The client stays usable, unless the request was left half sent: that
            closes it.
        :raises FrameTooLarge: the payload is over the server's :attr:`max_payload`.
        """
        number, data = self._number(service), self._checked(payload)
        if self._beside is not None:
            refuse_own_loop(self._beside)
        return self._in_turn(timeout, self._link.request, number, data)

    @overload
    def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        *,
        return_exceptions: Literal[False] = False,
    ) -> list[bytes]: ...
    @overload
    def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        *,
        return_exceptions: bool,
    ) -> list[bytes | RemoteError]: ...
    def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Send many requests without waiting in between; return the replies in the order of the requests.

        :param timeout: for all of them together.
        :param return_exceptions: put a :class:`RemoteError` in the list in place of the reply. Otherwise the first one
            is raised, when all answers are in.
        :raises RemoteError: as said.
        :raises RequestTimeout: not all replies came in time. The client stays usable, unless a request was left half
            sent: that closes it.
        :raises FrameTooLarge: a payload is over the server's :attr:`max_payload`; nothing was sent.
        """
        number, all_payloads = self._number(service), list(payloads)
        if self._beside is not None:
            refuse_own_loop(self._beside)
        replies, errors = self._in_turn(
            timeout,
            lambda seconds: self._link.request_many(number, all_payloads, self._max_payload, seconds, self._window),
        )
        if errors:
            replies = [self._telling_services(one) if isinstance(one, RemoteError) else one for one in replies]
        if errors and not return_exceptions:
            raise next(reply for reply in replies if isinstance(reply, RemoteError))
        return replies

    def notify(self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None) -> None:
        """Send a request that isn't answered, not even with an error.

        :raises RemoteError: the server has no such service.
        :raises RequestTimeout: the server took it too slowly; the client is closed if that left a frame half sent.
        :raises FrameTooLarge: the payload is over the server's :attr:`max_payload`.
        """
        number, data = self._number(service), self._checked(payload)
        link = self._link
        self._in_turn(
            timeout,
            lambda seconds: link.send(Kind.SRM, number, link.next_request_id(), data, seconds, FLAG_NO_REPLY),
        )

    def ping(self, payload: kinds.Buffer = b"", timeout: float | None = None) -> float:
        """Ask for a sign of life; return the seconds there and back.

        :param payload: at most 64 bytes, which the server sends back.
        :raises RequestTimeout: no answer in time. The client stays usable.
        """
        data = checked(payload, LARGEST_PING, "a ping's limit")
        if self._beside is not None:
            refuse_own_loop(self._beside)
        return self._in_turn(timeout, lambda seconds: self._ping(data, seconds))

    def _ping(self, payload: Buffer, seconds: float | None) -> float:
        started = monotonic()
        request_id = self._link.next_request_id()
        self._link.send(Kind.PING, 0, request_id, payload, seconds)
        frame = self._await_pong(request_id, deadline_of(seconds))
        elapsed = monotonic() - started
        if frame.payload != payload:
            self._link.close()
            raise ProtocolError("the server answered a ping with other bytes than those it was sent")
        return elapsed

    def _await_pong(self, request_id: int, deadline: float | None) -> Frame:
        while True:
            frame = self._link.receive(time_left(deadline))
            if frame.kind == Kind.PONG and frame.request_id == request_id:
                return frame
            self._link.inbox.append(frame)  # the mailbox knows what to do with it

    # Pushes

    def on_push(self, hook: PushHook) -> PushHook:
        """Register ``hook(payload)`` for what the server sends unasked. The decorator returns it unchanged.

        It is called after the call in which the push arrived, in that call's thread, and may use this client. What it
        raises is logged. Without a hook pushes are kept for :meth:`pushes`.
        """
        checked_function("hook", hook, "hook(payload)", "this client's hooks are plain functions")
        self._mail.hook = hook
        return hook

    def pushes(self, timeout: float | None = None) -> Iterator[bytes]:
        """Yield what the server sends unasked, as it comes: for a client that listens.

        :param timeout: seconds after which the generator ends; ``None`` is never, here. With 0 it yields what has come
            already.
        :raises ConnectionLost: the connection ended without a goodbye. After the server's goodbye, and after
            :meth:`close`, the generator just ends.
        """
        seconds = None if timeout is None else checked_timeout(timeout)
        return self._pushes(seconds, deadline_of(seconds))

    def _pushes(self, seconds: float | None, deadline: float | None) -> Iterator[bytes]:
        looks = PUSHES_MAX if seconds == 0 else 0  # without waiting; an end to it, however fast the server is
        while True:
            # The lock isn't held at a yield: who listens may also send requests in between.
            while (payload := self._mail.take()) is not None:
                yield payload
            left = time_left(deadline)
            if left == 0:
                looks -= 1
            if looks < 0 or not self._listen(left):
                return
            if self._waiting:
                time.sleep(0.001)  # so that a thread that wants the lock really gets it

    def _listen(self, left: float | None) -> bool:
        """Wait a while for something to come; ``False`` when nothing more will."""
        lock, held = self._idle_lock(), False
        try:  # as in _in_turn()
            remaining = self._acquire(lock, left)
            held = True
            return self._hear(remaining)
        except RequestTimeout:
            return left != 0  # another thread's call may have brought something
        finally:
            if held or lock._is_owned():
                lock.release()

    def _hear(self, left: float | None) -> bool:
        if self._elsewhere:
            raise ConnectionLost(self._ended)
        if self._closing:
            return False
        if self._beside is not None and left != 0:
            refuse_own_loop(self._beside)
        try:
            self._link.inbox.append(self._link.receive(_SLICE if left is None else min(left, _SLICE)))
        except ConnectionLost as error:
            if self._mail.goodbye is None:
                self._lost(error)
            return False
        finally:
            self._mail.sort(self._link.inbox)
        return True

    # The end

    def close(self) -> None:
        """Say goodbye and close. Waits for another thread's call to end. Called again it does nothing.

        :raises PysockError: it is called by a signal's handler in the middle of a call of this client.
        """
        if self._elsewhere:
            return
        lock, held = self._idle_lock(), False
        self._closing = True
        self._waiting += 1
        try:  # as in _in_turn(); the `with` of some Pythons looks for signals between the lock and its first line
            lock.acquire()
            held = True
            if not self._link.closed:
                with suppress(ConnectionError, RequestTimeout):
                    self._link.send(Kind.BYE, 0, 0, b"", _GOODBYE)
                self._link.close()
        finally:
            if held or lock._is_owned():
                lock.release()
            self._waiting -= 1

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: a forked child, the connection is the parent's. The link closes itself."""
        self._lock = threading.RLock()
        if not self._closing:
            self._ended = f"this client {why}"
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

    def _in_turn(self, timeout: float | None, call: Callable[..., Result], *arguments: Any) -> Result:
        """Have the connection for one call, which is given the time that is left for it as the last argument.

        Python raises a signal's exception as functions are entered and left. So where the lock was just taken, only the
        lock knows it; and once ``held`` says so, nothing is called before it is given back. A generator or a context
        manager of ours would be left at its own entry, and keep the lock for ever.
        """
        lock, held = self._lock, False
        if lock._is_owned():
            raise PysockError(BUSY)
        try:
            seconds = self._begin(lock, timeout)
            held = True
            try:
                return call(*arguments, seconds)
            except ConnectionLost as error:
                self._lost(error)
            except RemoteError as error:
                raise self._telling_services(error) from None
            finally:
                if self._link.inbox:
                    self._mail.sort(self._link.inbox)
        finally:
            if held or lock._is_owned():
                lock.release()
            if held:
                self._mail.deliver()  # now that others may have the connection: the hook may want it, too

    def _idle_lock(self) -> Any:
        """The lock; but not for a signal's handler in the middle of a call of this thread, which would spoil that."""
        lock = self._lock
        if lock._is_owned():
            raise PysockError(BUSY)
        return lock

    def _begin(self, lock: Any, timeout: float | None) -> float | None:
        """Take the lock, which the caller gives back; the time that is left then."""
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if not lock.acquire(False):
            seconds = self._acquire(lock, seconds)
        if self._closing or self._mail.goodbye is not None or self._link.closed:
            raise ConnectionLost(self._farewell() or self._ended)
        return seconds

    def _acquire(self, lock: Any, seconds: float | None) -> float | None:
        deadline = deadline_of(seconds)
        self._waiting += 1
        try:
            if not lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
                raise RequestTimeout("another thread's call on this client took all the time")
        finally:
            self._waiting -= 1
        return time_left(deadline)

    def _lost(self, error: ConnectionLost) -> NoReturn:
        """The connection ended within a call. If the server had said goodbye, or what is wrong, say so."""
        self._mail.sort(self._link.inbox)
        reason = self._farewell()
        if reason is None and self._mail.last_words:
            reason = f"{error}; it said: {self._mail.last_words}"
        if reason is None:
            raise error
        raise ConnectionLost(reason) from error

    def _farewell(self) -> str | None:
        goodbye = self._mail.goodbye
        return None if goodbye is None or self._closing else f"the server said goodbye: {goodbye}"

    def _telling_services(self, error: RemoteError) -> RemoteError:
        """The same error; where the unnamed service is missing, with the names of those there are."""
        if error.code != ErrorCode.NO_SUCH_SERVICE or error.message != TEXT_NO_SUCH_SERVICE:
            return error
        known = ", ".join(map(repr, self._numbers)) or "no named ones"
        return RemoteError(f"{error.message}: the server has no unnamed one; it has {known}", error.code)

    def _number(self, service: str | None) -> int:
        if service is None:
            return 0
        number = self._numbers.get(service)
        if number is None:
            known = ", ".join(map(repr, self._numbers)) or "no named ones"
            raise RemoteError(f"the server has no service {service!r}; it has {known}", ErrorCode.NO_SUCH_SERVICE)
        return number

    def _checked(self, payload: kinds.Buffer) -> Buffer:
        return checked(payload, self._max_payload, SERVERS_LIMIT)


def _checked_key(key: bytes) -> bytes:
    from pysock.wire.auth import checked_key  # the hashes take a while to import

    return checked_key(key)


_parts_taken = False


def _take_parts() -> None:
    """Import what a client runs on, when the first one is made: a program that only has the name pays nothing, and one
    that has a Client can give up its rights, or its root directory, with nothing left to import.
    """
    global _parts_taken
    global Address, AddressLike, as_address, monotonic, Trust, open_link, checked_timeout, deadline_of, time_left
    global BUSY, Buffer, Link, choose, own, checked_function, shown, LARGEST_PAYLOAD, PUSHES_MAX, Mailbox
    global SERVERS_LIMIT, checked, Ids, expected_server, FLAG_NO_REPLY, LARGEST_PING, TEXT_NO_SUCH_SERVICE
    global ErrorCode, Frame, Kind, refuse_own_loop, checked_linger
    if _parts_taken:
        return
    from pysock.access.peers import Ids, expected_server
    from pysock.address import Address, AddressLike, as_address
    from pysock.base.aliases import Buffer
    from pysock.base.clock import monotonic
    from pysock.base.deadlines import checked_timeout, deadline_of, time_left
    from pysock.base.forking import own
    from pysock.base.functions import checked_function
    from pysock.base.ids import shown
    from pysock.base.payload import SERVERS_LIMIT, checked
    from pysock.connecting import Trust, open_link
    from pysock.engine.choice import choose
    from pysock.engine.contract import BUSY, Link
    from pysock.limits import LARGEST_PAYLOAD
    from pysock.mailbox import PUSHES_MAX, Mailbox
    from pysock.parameters import checked_linger
    from pysock.selfcall import refuse_own_loop
    from pysock.wire.format import FLAG_NO_REPLY, LARGEST_PING, TEXT_NO_SUCH_SERVICE, ErrorCode, Frame, Kind

    _parts_taken = True


def connect(
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
) -> Client:
    """Connect to a server and be let in: ``connect()``, then the connection initiation request (CIR).

    :param address: where the server listens: a text, an :class:`Address`, or the ``Path`` of a socket file.
    :param name: how the server shall call this client: at most 255 bytes of UTF-8.
    :param timeout: seconds for all of this, and by default for each call later; ``None`` waits for ever.
    :param backend: ``"auto"``, ``"native"`` or ``"pure"``.
    :param linger: how long to poll for a reply without sleeping before the first sleep. By default up to 20
        microseconds, where trying now and then shows that it pays, as of a :class:`Server`; a number of seconds is
        obeyed, 0 switches it off, 1 is the most.
    :param max_payload: the largest reply in bytes that this client takes.
    :param max_pushes: pushes that are kept while nobody takes them; then the oldest goes for each new one. Of those
        that come within one call at most 65,536 are kept.
    :param authkey: a secret that the server must have, too. Each end proves to the other that it has it, by HMAC-SHA256
        and without sending it; nothing is encrypted.
    :param server_uid: who the server behind a Unix socket may run as: the number or name of a user, or several.
        It is the user who called ``listen()``, looked at before a byte is sent. By default anybody; on an abstract
        address, which has no permissions, this process's own user and root.
    :raises FileNotFoundError: there is no such socket file.
    :raises ConnectionRefusedError: nobody listens there.
    :raises ConnectionRefused: the server didn't let the client in (:class:`ServerFull` if it had no room); with code 3
        because of the auth key: the two differ, or only one end has one.
    :raises PermissionError: the server runs as somebody else than ``server_uid`` says, or the system doesn't let this
        process connect.
    :raises RequestTimeout: it took too long.
    :raises ProtocolError: it isn't a pysock server.
    :raises ValueError: a parameter is wrong; the message says which.
    """
    return Client(
        address,
        name,
        timeout=timeout,
        backend=backend,
        linger=linger,
        max_payload=max_payload,
        max_pushes=max_pushes,
        authkey=authkey,
        server_uid=server_uid,
    )
