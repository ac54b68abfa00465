"""Answers to deferred requests, and pieces of streams, from whatever thread they come: what comes from the loop's own
is sent at once, also between the turns of a guest; what comes from another one is left to the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.commands import Commands
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.guest import Guest
    from pysock.engine.pure.push import Pushes

#: Of a stream's client so much may wait to be sent; then the stream's task waits, and others have their turn.
_WAITING_MAX: Final = 64 * 1024


class Outside(Unique):
    """Of one engine.

    :param wants_turn: called between turns: one is wanted.
    """

    def __init__(
        self, core: Core, commands: Commands, pushes: Pushes, guest: Guest, wants_turn: Callable[[], None]
    ) -> None:
        self._core = core
        self._commands = commands
        self._pushes = pushes
        self._guest = guest
        self._wants_turn = wants_turn

    def answer(self, handle: int, reply: Any) -> bool:
        """As :meth:`pysock.engine.contract.Engine.answer`."""
        here, deferrals = get_ident(), self._core.deferrals
        if here == self._pushes.loop:
            return deferrals.answer(handle, reply)
        if here == self._guest.host:
            return self._guest.between(lambda: deferrals.answer(handle, reply), False, self._wants_turn)
        return self._commands.post(lambda: deferrals.answer(handle, reply))

    def send_more(self, handle: int, piece: Any) -> int:
        """As :attr:`pysock.engine.contract.Engine.send_more`."""
        here, streams = get_ident(), self._core.streams
        if here == self._pushes.loop:
            return streams.send(handle, piece, _WAITING_MAX)
        if here == self._guest.host:
            return self._guest.between(lambda: streams.send(handle, piece, _WAITING_MAX), -1, self._wants_turn)
        own = bytes(piece) if type(piece) in {bytearray, memoryview} else piece
        return int(self._commands.post(lambda: streams.take_from_elsewhere(handle, own)))
