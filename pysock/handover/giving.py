"""One round on the old side: clients are held, packed, sent, and gone when the other side serves them; or all is as it
was.

This file owns the point of no return. Until COMMIT is sent the old side may change its mind whenever it wants. After
that it may, too, as long as the other side hasn't said ACTIVE, which it says before it acts: the old side hangs up
first, so that it can't be said any more, and then looks whether it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed, PysockError
from pysock.handover import baggage, tags
from pysock.handover.channel import LONGEST, Channel, Gone, Heard, Late, close_all
from pysock.handover.messages import Kind
from pysock.handover.rows import split_rows
from pysock.handover.within import within
from pysock.states import ServerState

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    from pysock.engine.contract import Engine
    from pysock.handover.options import Options
    from pysock.running import Running

    T = TypeVar("T")

#: Messages that wait for their TAKEN: so the descriptors under way stay few, whatever a process may have.
WINDOW: Final = 2
#: Rows of one message.
MOST_ROWS: Final = 64
#: Clients that are packed at once.
PACKED: Final = 512
#: Bytes of a message of rows that aren't rows.
_HEADS: Final = 64


class Held(NamedTuple):
    """Who is about to move."""

    ids: list[int]
    carried: dict[int, bytes]  # what the program keeps of them
    places: tuple[int, int]


class Giving(Unique):
    """The rounds of one hand-over."""

    def __init__(self, running: Running, channel: Channel, options: Options) -> None:
        assert running.engine is not None
        self._running = running
        self._engine: Engine = running.engine
        self._channel = channel
        self._options = options
        self._round = self._sent = 0
        self.moved: int = 0
        #: Nothing more can be heard.
        self.is_cut_off: bool = False
        #: Who can't move, with the reason.
        self.stay: dict[int, str] = {}

    def in_loop(self, function: Callable[[], T]) -> T:
        """Do it in the loop's thread."""
        return within(self._engine, function, self._options.step)

    def hear(self, kind: Kind, patience: float | None = None) -> Heard:
        """The next message, which is one of this kind; what comes with it is closed.

        :raises HandoverFailed: it isn't, or nobody says anything.
        """
        heard = self._channel.receive(self._options.step if patience is None else patience)
        close_all(heard.descriptors)
        message = heard.message
        if message.kind in {Kind.REFUSE, Kind.GAVE_UP}:
            why = message.fields.get(tags.WHY, [b"it says not why"])[0].decode(errors="replace")
            raise HandoverFailed(f"the new side gave up: {why}")
        if message.kind != kind:
            raise HandoverFailed(f"{message.name} came in place of {kind.name}")
        return heard

    # A round

    def first(self) -> None:
        """All that can move at once; nobody is accepted here any more.

        :raises HandoverFailed: nothing has become of it: everybody is served on here.
        """
        self._try(self._freeze, self._say_freeze)

    def more(self) -> None:
        """Those who can move by now, if there are any.

        :raises HandoverFailed: the new side is lost; whoever is left is served here.
        """
        self._try(self._hold, lambda held: None)

    def _try(self, hold: Callable[[], Held], begin: Callable[[Held], None]) -> None:
        self._sent = 0
        ids: list[int] = []
        try:
            held = self.in_loop(hold)
            ids = held.ids
            begin(held)
            if ids or self._round == 0:
                self._move(held)
        except BaseException as error:
            if not self._was_active():
                self._take_back(error)
                raise
        self.moved += self._sent
        if ids:
            with suppress(OSError, PysockError):  # the server has ended meanwhile, and they with it here
                self._engine.call_later(partial(self._discard, ids))  # however late: nothing brings them back

    def _freeze(self) -> Held:
        if self._running.state is not ServerState.SERVING:
            raise HandoverFailed("this server stops")
        self._engine.freeze()
        return self._hold()

    def _hold(self) -> Held:
        carried, self.stay = baggage.all_packed(self._running)
        return Held(self._engine.hold([*self.stay, *baggage.asked(self._running)]), carried, self._engine.places())

    def _say_freeze(self, held: Held) -> None:
        slots, generation = (number.to_bytes(4, "little") for number in held.places)
        self._say(Kind.FREEZE, [(tags.SLOTS, slots), (tags.GENERATION, generation)])

    def _move(self, held: Held) -> None:
        self._round += 1
        self._send(held)
        if self._running.state is not ServerState.SERVING:  # so what was sent needn't be what it was taken for
            raise HandoverFailed("this server stops")
        number = self._round.to_bytes(4, "little")
        self._say(Kind.COMMIT, [(tags.ROUND, number)])
        self.hear(Kind.ACTIVE)

    def _discard(self, ids: Sequence[int]) -> None:
        baggage.discard(self._running, self._engine, ids)
        presence = self._running.hooks.presence
        if presence is not None:  # no hook hears of it, but the other nodes have to: they are at the new side's
            for client_id in ids:
                presence.left(client_id)

    def _send(self, held: Held) -> None:
        waiting: deque[int] = deque()
        number = 0
        for at in range(0, len(held.ids), PACKED):
            ids = held.ids[at : at + PACKED]
            rows, descriptors = self.in_loop(partial(self._engine.pack, ids))
            luggage = [(tags.BAGGAGE, held.carried[one]) for one in ids if one in held.carried]
            if luggage:
                self._say(Kind.EXTRA, luggage)
            for part, theirs in cut(rows, descriptors):
                while len(waiting) >= WINDOW:
                    self._taken(waiting)
                number += 1
                fields = [(tags.NUMBER, number.to_bytes(4, "little")), (tags.ROWS, part)]
                self._channel.send(Kind.ROWS, fields, theirs, patience=self._options.step)
                waiting.append(number)
                self._sent += len(theirs)
        while waiting:
            self._taken(waiting)

    def _taken(self, waiting: deque[int]) -> None:
        number = self.hear(Kind.TAKEN).message.number(tags.NUMBER, 4)
        if number != waiting.popleft():
            raise HandoverFailed("TAKEN came for something else")

    def _say(self, kind: Kind, fields: Sequence[tuple[int, bytes]] = ()) -> None:
        self._channel.send(kind, fields, patience=self._options.step)

    # It failed

    def _was_active(self) -> bool:
        """Whether they are served there, and that was only not heard. If not, they never will be."""
        self.is_cut_off = True
        self._channel.hang_up()
        kinds = []
        for heard in self._channel.queued():
            close_all(heard.descriptors)
            kinds.append(heard.message.kind)
        return Kind.ACTIVE in kinds

    def _take_back(self, error: BaseException) -> None:
        """Serve everybody on."""
        self._abort(str(error))
        try:
            self.in_loop(self._engine.thaw)
        except PysockError as gone:
            log.warning("the hand-over failed, and %s", gone)

    def _abort(self, why: str) -> None:
        """Until this is in its queue, a new side that hears of our death would serve those who are served here."""
        while True:
            try:
                self._channel.send(Kind.ABORT, [(tags.WHY, why.encode()[:1000])], patience=self._options.step)
                return
            except Gone:  # noqa: PERF203  # likewise
                return
            except Late:
                log.error("the new side of a hand-over hangs, and can't be told that it has failed: kill it")


def cut(rows: bytes, descriptors: Sequence[int]) -> Iterator[tuple[bytes, Sequence[int]]]:
    """Cut rows into messages, each with its descriptors."""
    begin = at = first = count = 0
    for row in split_rows(memoryview(rows)):
        if count and (count == MOST_ROWS or at + len(row) - begin > LONGEST - _HEADS):
            yield rows[begin:at], descriptors[first : first + count]
            begin, first, count = at, first + count, 0
        at += len(row)
        count += 1
    if count:
        yield rows[begin:], descriptors[first : first + count]
