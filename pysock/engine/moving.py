"""The part of the engine contract by which clients move to the process that follows: what ``pysock/handover/`` asks of
an engine.

The old side freezes, holds its clients, packs them into rows and descriptors, and discards them when the new side has
them; until then ``thaw`` makes everything as it was. The new side adds them, asleep, and activates them. A row is bytes
that both engines read and write, see :mod:`pysock.handover.rows`.

All of it is called in the loop's thread (by ``Engine.call_later``), or before ``run``, and never within the event of a
client, such as in a handler. A server that never moves doesn't pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pysock.base.lean import Protocol


class Moving(Protocol):
    """What an engine does where its clients move."""

    # --- the old side ---

    def freeze(self) -> None:
        """Accept nobody from now on until ``thaw``: who comes waits in the backlog. The master sockets stay open.
        Called again it does nothing.
        """

    def hold(self, but: Sequence[int] = ()) -> list[int]:
        """Read nothing more of anybody. Those of whom nothing is in flight (no request without an answer, no stream)
        and who aren't ending are held: out of the poll, nothing of them is read or written, their deadlines stand
        still. The others are still answered, and what waits for them is sent: call it again later. Connections that
        speak TLS are left alone, for they can't move; so are those that are about to end.

        What is sent to a client while it is held waits in its output, bounded as ever, and moves with it; once it is
        packed there is no such client for whoever wants to send. A held one that is disconnected is ended, and moves
        no more.

        :param but: the ids of those that are to be left alone altogether: they are read and served.
        :returns: the ids of those that are held since this call, oldest first; also of such as weren't let in yet.
        """

    def pack(self, ids: Sequence[int]) -> tuple[bytes, list[int]]:
        """The rows of these held clients, one after the other, and their descriptors in the same order. These are still
        the engine's: the caller passes them on, and closes none. Who isn't held, any more, is left out.
        """

    def discard(self, ids: Sequence[int]) -> None:
        """These packed clients have moved: close our copies of their descriptors, without a shutdown, and forget them.
        Nobody is told that they went, and they aren't among ``Engine.gone``. Unknown ids count for nothing. On the new
        side likewise those that sleep: they stay with the old one.
        """

    def thaw(self) -> None:
        """Nobody has moved: serve all that are held or paused from where they were, with what was left of their
        deadlines; and accept again. Also after ``discard`` of some. Where nothing is frozen it does nothing.
        """

    def dismiss(self, ids: Sequence[int] = ()) -> None:
        """GOAWAY, where the framing has it, to all that can't move because they speak TLS, and to these, unless they
        are packed: they drain as when the server stops. What they have asked for is answered, what comes from now on is
        refused or not read, and then they are closed.
        """

    def hurry(self) -> None:
        """Wait no longer for what is in flight of those that ``hold`` has paused: it is answered by an ERROR,
        SHUTTING_DOWN, or CANCELLED where its work had begun; a framing without errors closes. Then they can be held.
        """

    def places(self) -> tuple[int, int]:
        """How many slots of the client table were ever used, and the highest generation that one of them has had."""

    def moved(self) -> tuple[int, int]:
        """How many clients have come from another process, and how many have gone to one. They are counted neither as
        accepted nor as disconnected; what they have sent and got so far stays counted where they did.
        """

    # --- the new side ---

    def reserve(self, slots: int, generation: int = 0) -> None:
        """Before anybody has come: leave the first so many slots to those that are added, until ``reserve(0)`` says
        that no more are; and begin each slot behind this generation, so that no id that the old side has given is
        given again.

        :raises OSError: the table hasn't so many slots (ENOSPC).
        """

    def add(self, rows: bytes, descriptors: Sequence[int]) -> list[int]:
        """Make these clients, under their own ids, asleep: nothing of them is read or written. All or none of them.
        Then the descriptors, one for each row, are the engine's. No callback is called.

        :returns: their ids.
        :raises ValueError: a row isn't as it may be, or doesn't fit this engine; it says which, and why.
        :raises OSError: there is no memory, or no room in the table. In each case the descriptors are the caller's.
        """

    def activate(self) -> None:
        """Wake all that sleep: what was read of them is served first, in its order, then what waits is sent, then they
        are read. Before ``run`` that happens in its first turn.
        """
