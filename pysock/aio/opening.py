"""How an asyncio client comes to its connection: the handshake of the blocking client, without blocking.

This file owns the socket until the connection has it.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from pysock.access.peers import check_server
from pysock.address import Address
from pysock.base.aliases import SocketAddress
from pysock.base.deadlines import deadline_of, time_left
from pysock.base.faults import explains
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL
from pysock.calls.handshake import FIRST_PAUSE, LONGEST_PAUSE, Trust, new_socket
from pysock.calls.initiation import Initiation, explained, within
from pysock.engine.inbox import INBOX_MAX, Inbox
from pysock.engine.inlet import Inlet
from pysock.errors import ConnectionLost, ProtocolError, RequestTimeout, TLSError
from pysock.files.place import reachable
from pysock.wire.cir import Welcome
from pysock.wire.features import CLIENT_FEATURES
from pysock.wire.format import Frame, Kind, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pysock.tls.channel import ClientChannel
    from pysock.tls.info import TLSInfo
    from pysock.tls.wanted import Wanted


class Opening:
    """One connection that comes about.

    :param timeout: seconds for all of it; ``None`` is no limit.
    """

    def __init__(self, address: Address, timeout: float | None, trust: Trust, features: int = CLIENT_FEATURES) -> None:
        self._features = features
        self._address = address
        self._timeout = timeout
        self._deadline = deadline_of(timeout)
        self._trust = trust
        self.inbox: Inbox = Inbox((), INBOX_MAX)
        #: What is around the socket, where TLS is spoken, and what came of its handshake.
        self.channel: ClientChannel | None = None
        self.info: TLSInfo | None = None

    async def open(
        self, name: str, max_payload: int, make: Callable[[int], Inlet]
    ) -> tuple[socket.socket, Inlet, Welcome]:
        """The socket, which is the caller's, and the welcome; raises what :func:`pysock.connect` says.

        :param make: makes the inlet. As all that isn't needed where nobody listens, it is made later: of those whose
            server is away there may be thousands, which try again and again.
        """
        with explains(self._address, "connect()"):
            handle = await self._connect()
        try:
            inlet = make(max_payload)
            inlet.agree(self._features)  # what follows the welcome may come with it
            initiation = Initiation(self._address, name, max_payload, self._trust.proof, self._features)
            if self._trust.servers is not None:
                check_server(handle, self._address, self._trust.servers)
            if self._trust.header:
                await self._send(handle, self._trust.header)
            if self._trust.tls is not None:
                await self._secure(handle, inlet, self._trust.tls)
            await self._send(handle, initiation.cir)
            answer = initiation.take(await self._answer(handle, inlet, initiation))
            while not isinstance(answer, Welcome):
                await self._send(handle, encode(Kind.PROOF, answer))
                answer = initiation.take(await self._answer(handle, inlet, initiation))
        except BaseException:
            handle.close()
            raise
        inlet.agree(answer.features)
        if self.channel is not None:
            from pysock.tls.client import remember  # noqa: PLC0415  # whoever speaks no TLS doesn't pay for it

            remember(self.channel, self._address, self._trust.tls)  # type: ignore[arg-type]  # it is there
        return handle, inlet, answer

    async def _secure(self, handle: socket.socket, inlet: Any, wanted: Wanted) -> None:
        """The TLS handshake. The inlet is one of the pure engine."""
        from pysock.tls import client  # noqa: PLC0415  # as above
        from pysock.tls.channel import ClientChannel  # noqa: PLC0415

        self.channel = channel = client.channel_to(handle, self._address, wanted, ClientChannel)
        try:
            done = channel.shake(reads=False)
            while not done:
                await self._ready(handle, writing=False)
                with suppress(BlockingIOError, InterruptedError):
                    done = channel.shake()
        except TimeoutError:
            late = f"{self._address}: the server didn't answer in the TLS handshake{within(self._timeout)}"
            raise RequestTimeout(late) from None
        except (TLSError, ConnectionError) as error:
            raise client.explained(error, self._address) from error
        self.info = channel.info()
        inlet.receive_through(channel)

    async def _connect(self) -> socket.socket:
        """Try each address that the host has; raise what the last one said."""
        loop = asyncio.get_running_loop()
        way = reachable(self._address)
        targets = await loop.run_in_executor(None, way.__enter__) if self._named() else way.__enter__()
        try:
            for target in targets[:-1]:
                with suppress(OSError):
                    return await self._connect_one(target)
            return await self._connect_one(targets[-1])
        except TimeoutError:
            raise RequestTimeout(f"{self._address}: no connection{within(self._timeout)}") from None
        except OSError as error:
            raise explained(error, self._address) from error
        finally:
            way.__exit__(None, None, None)

    def _named(self) -> bool:
        """A host may have a name, which is asked for over the network."""
        return self._address.transport not in {"unix", "abstract"}

    async def _connect_one(self, target: SocketAddress) -> socket.socket:
        family, where = target
        handle = new_socket(family)
        try:
            handle.setblocking(False)
            pause = FIRST_PAUSE
            while True:
                try:
                    handle.connect(where)
                except BlockingIOError:  # noqa: PERF203  # it is what is looped for
                    if family != socket.AF_UNIX:
                        await self._ready(handle, writing=True)
                        _raise_pending(handle)
                        return handle
                    # EAGAIN: the backlog is full, and nothing ever tells when there is room (cpython#117208).
                    left = self._left()
                    await asyncio.sleep(pause if left is None else min(pause, left))
                    pause = min(pause * 2, LONGEST_PAUSE)
                else:
                    return handle
        except BaseException:
            handle.close()
            raise

    async def _send(self, handle: socket.socket, data: bytes) -> None:
        try:
            while data:
                try:
                    data = data[(self.channel or handle).send(data, NO_SIGNAL) :]
                except BlockingIOError:  # noqa: PERF203  # as above
                    await self._ready(handle, writing=True)
        except (BrokenPipeError, ConnectionResetError):
            pass  # who is full refuses without reading anything: why may be waiting to be read
        except TimeoutError:
            late = f"{self._address}: the server took nothing{within(self._timeout)}"
            raise RequestTimeout(late) from None

    async def _answer(self, handle: socket.socket, inlet: Inlet, initiation: Initiation) -> Frame:
        try:
            while not self.inbox:
                await self._ready(handle, writing=False)
                inlet.receive(handle.fileno(), {}, self.inbox)
        except TimeoutError as error:
            raise initiation.failed(error, self._timeout) from None
        except (ConnectionLost, ProtocolError) as error:
            if not self.inbox:
                raise initiation.failed(error, self._timeout) from error
        return Frame._make(self.inbox.popleft())

    async def _ready(self, handle: socket.socket, *, writing: bool) -> None:
        """Wait until the socket is ready.

        :raises TimeoutError: it took too long.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        add: Callable[..., Any] = loop.add_writer if writing else loop.add_reader
        remove: Callable[..., Any] = loop.remove_writer if writing else loop.remove_reader
        left = self._left()
        timer = None if left is None else loop.call_later(left, _fail, future)
        try:
            add(handle.fileno(), _wake, future)
            await future
        finally:
            remove(handle.fileno())
            if timer is not None:
                timer.cancel()

    def _left(self) -> float | None:
        left = time_left(self._deadline)
        if left == 0:
            raise TimeoutError
        return left


def _raise_pending(handle: socket.socket) -> None:
    number = handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, "connect() failed")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
