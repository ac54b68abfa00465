"""What anybody may do to clients, from any thread: push, broadcast, ask, disconnect. The loop's thread does it at
once, the others leave it to the loop.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from threading import get_ident

from pysock.base.aliases import Buffer, Ids
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.pure.ending import dismiss
from pysock.engine.pure.look import find
from pysock.engine.pure.output import PACKED
from pysock.engine.pure.waiting.pushed import Push
from pysock.engine.said import answers_nothing
from pysock.errors import FrameTooLarge
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason
from pysock.wire import texts
from pysock.wire.endings import End
from pysock.wire.features import Feature

if TYPE_CHECKING:
    from pysock.engine.pure.commands import Commands
    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.listener import Listener


class Pushes(Unique):
    """Of one engine."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._commands = commands
        self.loop: int | None = None  # the thread that runs it

    def push(self, client_id: int, payload: Buffer) -> bool:
        """Send bytes the client didn't ask for."""
        connection = find(self._core, client_id)
        if connection is None or not connection.takes_pushes():
            return False  # first: whoever is leaving takes nothing, however small
        payload = bytes(payload)
        if len(payload) > connection.protocol.reply_limit:
            raise FrameTooLarge(texts.PUSH_TOO_LARGE % len(payload))
        message = Push(connection.listener.framing.message(payload))
        if get_ident() == self.loop:
            return connection.push(message)
        return self._commands.post(lambda: connection.push(message), len(message))

    def push_to(self, client_ids: Ids, payload: Buffer) -> int:
        """``push`` to each of these clients that is there and takes it; how many."""
        found = (find(self._core, client_id) for client_id in array("Q", client_ids))
        takers = _takers_of(payload := bytes(payload), [client for client in found if client is not None])
        if not takers:
            return 0  # the loop isn't woken for nothing
        return self._push_to_all(payload, takers, lambda: takers)

    def broadcast(self, payload: Buffer) -> int:
        """``push`` to every client that was let in; how many. Also to those let in before the loop sees to it."""
        payload, core = bytes(payload), self._core
        if len(payload) > core.rules.max_payload:
            raise FrameTooLarge(f"{len(payload)} bytes are too many: at most {core.rules.max_payload}")

        def takers() -> list[Connection]:
            return _takers_of(payload, list(core.table.clients.values()))

        return self._push_to_all(payload, takers(), takers)

    def _push_to_all(self, payload: bytes, now: list[Connection], then: Callable[[], list[Connection]]) -> int:
        """To those who take it when the loop sees to it, which is at once if this is its thread; how many there are."""
        messages = {listener: _message(listener, payload) for listener in {client.listener for client in now}}

        def push_to_all(clients: list[Connection]) -> int:
            missing = {client.listener for client in clients} - messages.keys()
            messages.update((listener, _message(listener, payload)) for listener in missing)
            return sum(client.push(messages[client.listener]) for client in clients)

        if get_ident() == self.loop:
            return push_to_all(now)
        # One command: all get it or, where the loop can't be told, nobody.
        waits = sum(map(len, messages.values()))
        return len(now) if self._commands.post(lambda: push_to_all(then()), waits) else 0

    def ask(self, client_id: int, frame: bytes, size: int) -> bool:
        """Send an ASK with a request of so many bytes, or an ASK_CANCEL."""
        connection = find(self._core, client_id)
        if (
            connection is None
            or connection.moving >= PACKED
            or connection.protocol.state is not ConnectionState.ESTABLISHED
        ):
            return False
        protocol = connection.protocol
        if not protocol.features & Feature.ASK:
            raise answers_nothing()
        if size > protocol.reply_limit:
            raise FrameTooLarge(texts.PUSH_TOO_LARGE % size)

        def send() -> None:
            if protocol.state is ConnectionState.ESTABLISHED and connection.moving < PACKED:
                connection.put(frame)

        if get_ident() != self.loop:
            return self._commands.post(send, len(frame))
        send()
        return protocol.state is ConnectionState.ESTABLISHED

    def disconnect(self, client_id: int, replaced: bool = False) -> bool:
        """Close this connection in order."""
        connection = find(self._core, client_id)
        if connection is None or connection.moving >= PACKED:
            return False

        def end() -> None:
            if connection.moving >= PACKED:
                return
            if replaced:
                dismiss(connection, End.REPLACED)
            else:
                connection.end(ConnectionEvent.DRAIN, DisconnectReason.CLOSED_BY_SERVER)

        if get_ident() == self.loop:
            end()
        else:
            self._commands.post(end)
        return True


def _takers_of(payload: bytes, clients: list[Connection]) -> list[Connection]:
    """Those of them that take so much now."""
    size = len(payload)
    return [client for client in clients if client.takes_pushes() and size <= client.protocol.reply_limit]


def _message(listener: Listener, payload: bytes) -> Push:
    return Push(listener.framing.message(payload))
