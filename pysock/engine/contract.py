"""The engine contract: what an engine, its sockets and its links do, and what it is told and tells.

This file owns the seam. Above it (the facade: ``server.py``, ``client.py``, ``master.py`` ...) nothing asks which
engine runs; a difference is data in ``Backend.features``. Below it are ``native`` (C, by cffi) and ``pure`` (Python),
which behave the same as seen from outside.

Threads: ``Engine.run`` is the loop and belongs to one thread; so do ``begin``, ``turn`` and ``end``, its pieces for a
loop of the program's. Every other method may be called from any thread, and from a handler inside the loop.

Numbers cross the seam, not objects: a client is its 64-bit id. The upper half says how often its slot in the client
table was used, from 1 on, so that an id that is out of date finds nobody. Of the lower half the upper 8 bits are the
number of the loop whose client it is, which is 0 as long as an engine is one loop; the other 24 are the slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pysock.base.aliases import Buffer, Ids
from pysock.base.lean import TYPE_CHECKING, NamedTuple, Protocol, dataclass
from pysock.engine.inlet import Inlet
from pysock.engine.link import Link
from pysock.engine.meter import Meter
from pysock.engine.moving import Moving
from pysock.engine.outlet import Outlet
from pysock.engine.proxies import Proxies
from pysock.engine.rows import ClientInfo, Current, EngineStats, Gone
from pysock.engine.seats import Seat
from pysock.engine.sockets import Sockets
from pysock.limits import Limits, Slow
from pysock.tls.info import TLSInfo
from pysock.wire.format import Framing

if TYPE_CHECKING:
    from typing import Any, Final


#: Bits of a client id for the slot; those above it, up to 32, are the loop's number.
SLOT_BITS: Final = 24


class Service(NamedTuple):
    """One entry of the service table. Its index there is its number on the wire; number 0 is the unnamed service.

    ``handler`` is called as ``handler(client, request)``, or ``handler(clients, requests)`` if ``batch``: with all
    requests of this service that are ready in this turn, at most ``max_batch`` of them, held back for at most
    ``max_wait`` seconds to let more come. It is ``None`` where there is no such service.

    ``streams``: its reply is a stream. Then ``handler`` returns an iterator, whose items the loop sends as pieces, one
    after the other, closing it when nobody wants more; or something for which ``Callbacks.defer`` has an answer, that
    is, what calls ``Engine.send_more`` itself; or a whole reply. ``endless``: what is answered later here is ended as
    soon as the server begins to stop.
    """

    name: str
    handler: Callable[[Any, Any], Any] | None
    batch: bool = False
    max_batch: int = 1024
    max_wait: float = 0.0
    streams: bool = False
    endless: bool = False


class Access(NamedTuple):
    """Who may connect to a Unix socket: who runs as one of these users, or is in one of these groups."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()


NO_ACCESS: Final = Access()

#: What holds the loop up for so long, in seconds, is told of. So it is told of once in that time, at most.
HELD_UP: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What the engine calls in the facade, always in the loop's thread.

    An exception that isn't an ``Exception`` (``KeyboardInterrupt``, ``SystemExit``) ends the loop and comes out of
    ``Engine.run``. None of the callbacks below raises anything else but ``MemoryError``, which costs at most the client
    concerned its connection.
    """

    #: ``client(client_id)`` -> the DataSocket; asked once for each client, before the first handler call for it.
    client: Callable[[int], Any]
    #: ``connect(client_id)`` -> ``None`` to let the client in, or the reason to refuse it. It runs when the CIR has
    #: been found good and before CIR_ACCEPTED is sent; what it pushes to the client follows CIR_ACCEPTED.
    #: ``None`` if nobody wants to be asked: then no Python runs for a CIR.
    connect: Callable[[int], str | None] | None
    #: ``disconnect(client_id, reason)``, an index in ``DISCONNECT_REASONS``. It is called once for each client that
    #: was let in, if ``EngineOptions.watch_disconnects`` or if ``attach`` or ``client`` made an object for it.
    #: ``info(client_id)`` still works inside.
    disconnect: Callable[[int, int], None]
    #: ``failed(client_id, service, request_id, began, exception)`` -> ``(code, text, started)`` of the ERROR, which
    #: says whether the work on the request was started. ``began``: what the clock said in the turn in which the request
    #: came, or the first of its batch. The exception: what the handler raised, or a ``TypeError``/``FrameTooLarge``
    #: about what it returned. Framings without error frames close instead.
    failed: Callable[[int, int, int, float, Exception], tuple[int, bytes, bool]]
    #: ``draining()``: the loop has stopped accepting; close the master sockets.
    draining: Callable[[], None]
    #: ``log(level, message)``: something an operator should know.
    log: Callable[[int, str], None]
    #: ``noted(cause, times)``: a limit was reached, or a fault met (see ``pysock.causes``), so many times since
    #: the last call for this cause. At most one call a second for each cause.
    noted: Callable[[int, int], None]
    #: ``joined(client_id)``: this client was let in just now: whoever is served or pushes from now on finds it there.
    #: ``None`` if nobody wants to be told.
    joined: Callable[[int], None] | None = None
    #: ``allow(pid, uid, gid)``: may this peer of a checked Unix socket connect? Asked instead of
    #: ``EngineOptions.access`` where it isn't ``None``.
    allow: Callable[[int, int, int], bool] | None = None
    #: ``challenge(nonce, name)`` -> the fields of the CHALLENGE that answers a CIR with this nonce and name, and the
    #: MAC that its PROOF must have. ``None``: there is no auth key, and a CIR's nonce is not looked at.
    challenge: Callable[[bytes, bytes], tuple[bytes, bytes]] | None = None
    #: ``prove(expected, got)``: are the two MACs equal? In constant time. Set with ``challenge``.
    prove: Callable[[bytes, bytes], bool] | None = None
    #: ``defer(handle, result)``: the handler has returned something that is neither bytes-like nor ``None`` (nor, in a
    #: batch, an exception). ``None``: it has nothing to say; then it is a ``TypeError``. Else the answer comes later,
    #: by ``Engine.answer(handle, ...)``, which may be called in here already; and ``ended`` gets what is returned here.
    #: With the handle 0 nobody waits for it: the client has gone.
    defer: Callable[[int, Any], Any] | None = None
    #: ``ended(kept, why)``, an :class:`pysock.engine.deferral.Ended`: nobody waits for the answer to this deferred
    #: request any more. Called at most once for each, at the end of a turn. -> whether its work had begun. If not, the
    #: request is over; else it is in flight until ``answer`` is called, which sends nothing any more.
    ended: Callable[[Any, int], bool] | None = None
    #: ``flow(kept, left, limit)``: how many bytes a stream that sends its pieces itself may send now; 0: none, until
    #: this is called again; and how many in all, counted from its beginning, for who counts himself: that is called
    #: again when he has sent them, and the loop has seen it. Called first behind ``defer``. A piece counts for its size
    #: and :data:`pysock.wire.features.STREAM_COST`; one may be larger than what is left.
    flow: Callable[[Any, int, int], None] | None = None
    #: ``answered(client_id, request_id, code, payload)``: a client has answered what ``Engine.ask`` asked it under this
    #: id; ``code``: of its error, or 0. ``False``: it wasn't asked, or has answered before, which breaks the rules.
    answered: Callable[[int, int, int, bytes], bool] | None = None
    #: ``traced(client_id, request_id, trace)``: the client's next request with this id is a part of this trace.
    traced: Callable[[int, int, bytes], None] | None = None
    #: ``held_up(service, seconds)``: a turn has taken so long, at least ``EngineOptions.held_up``, and nobody else was
    #: served meanwhile: by handlers of this service; -1: whose isn't known. Then those that are called within the next
    #: minute are timed, so that the next one is.
    held_up: Callable[[int, float], None] | None = None
    #: ``served(request, skipped)``: what a ``Served`` has of one that ``Engine.notice`` asked for; and how many such
    #: weren't told of since the last call: of each turn a few are.
    served: Callable[[tuple[Any, ...], int], None] | None = None
    #: ``dropped(client_id)`` may be called in place of ``disconnect`` where nobody could tell the difference: without
    #: ``watch_disconnects``, for an object made by ``client`` that nobody but the engine and the facade refers to.
    #: It is only there to make short connections cheap, so an engine that can't know needn't call it.
    dropped: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Everything an engine needs to know at birth."""

    framing: Framing
    limits: Limits
    #: Seconds to poll without sleeping before a wait; 0 switches it off, ``None`` leaves it to the engine.
    linger: float | None
    services: Sequence[Service]
    callbacks: Callbacks
    #: The fields of CIR_ACCEPTED that follow the client id, encoded.
    welcome: bytes
    watch_disconnects: bool
    #: Who may connect to the master sockets that are checked.
    access: Access = NO_ACCESS
    #: What is dropped where too many pushes wait for a client that speaks of gaps; another one is closed.
    slow: Slow = Slow.DISCONNECT
    #: Seconds after which a turn has held up the loop.
    held_up: float = HELD_UP
    #: Others accept from the same master sockets, each with a row in a page; ``None``: nobody does.
    seat: Seat | None = None
    #: What speaks TLS: one of ``Backend.tls_drivers``, or ``"auto"``: for each master socket the first that can.
    tls_driver: str = "auto"
    meter: Meter | None = None  #: Where it counts for those who look from outside; ``None``: nobody does.


#: What ``Engine.turn`` returns: it is over; or, no turn is needed before ``Engine.poll_fd`` is readable.
OVER: Final = -1.0
WHEN_READABLE: Final = float("inf")


class Engine(Moving, Protocol):
    """One server's loop and client table."""

    def __init__(self, options: EngineOptions) -> None: ...

    def add_master(
        self, fd: int, checked: bool = False, prepared: bool = False, tls: Any = None, proxies: Proxies | None = None
    ) -> None:
        """Accept from this listening socket, from ``run`` on. The descriptor stays the caller's, who closes it
        when ``Callbacks.draining`` says so.

        :param checked: its peers, over a Unix socket, are held against the rule of access before a byte is read.
        :param prepared: its data sockets inherit what TCP options they need (:func:`pysock.base.vanish.prepare`);
            else the engine sets them on each.
        :param tls: what its clients must speak, a :class:`pysock.TLS` or an ``ssl.SSLContext``; ``None``: plain bytes.
            Its handshake comes before the framing's, within ``Limits.cir_timeout`` for both.
        :param proxies: clients come to it through proxies, which say first for whom they connect.
        """

    def tls_of(self, client_id: int) -> TLSInfo | None:
        """What came of the handshake of a connected client. ``None``: it speaks no TLS, or isn't there, or not yet."""

    def reload_tls(self, tls: Any) -> None:
        """The files of this :class:`pysock.TLS` have changed, and are good: it uses them for connections to come.

        :raises OSError: it can't be told; what was before is used.
        """

    @property
    def wakeup_fd(self) -> int:
        """For ``signal.set_wakeup_fd``: a byte written here ends the loop's wait, and Python's signal handlers run
        if the loop has the main thread.
        """

    def run(self) -> None:
        """Serve until ``stop``, then return with every connection closed. Called once.

        :raises BaseException: what a handler raised that isn't an ``Exception``; connections are closed first.
        :raises PysockError: it runs already, or has run.
        """

    def begin(self) -> None:
        """Instead of ``run``, in a loop of the program's: ``turn`` serves what comes, and ``end`` is called at last.
        Where this fails there is nothing to end, and the engine is to be closed.

        :raises PysockError: as ``run``; or this system has nothing that another loop could watch.
        """

    @property
    def poll_fd(self) -> int:
        """While this is readable, there is something for a ``turn`` to do. -1 if it is lost."""

    def turn(self) -> float:
        """Deal with what is ready, and don't sleep. In how many seconds it must be called again at the latest, if
        ``poll_fd`` isn't readable before; ``WHEN_READABLE``: once a second, for the descriptors' sake; ``OVER``: never.
        What its thread wants of clients between turns is left to the next one, but for ``answer``; no turn is within
        another.
        """

    def end(self) -> None:
        """Close every connection.

        :raises BaseException: as ``run``.
        """

    def stop(self, grace: float) -> None:
        """Begin to drain: stop accepting, send GOAWAY, answer and flush what was accepted, close; after ``grace``
        seconds end regardless. Called again it can only shorten the time. Doesn't wait; safe in a signal handler.

        :raises OSError: the loop couldn't be woken, and may take a while to notice; so may ``push``, ``broadcast`` and
            ``disconnect`` from other threads than the loop's.
        """

    def lame(self, lame: bool) -> None:
        """Answer PINGs from now on as one that wants no new clients; or no longer. All else goes on. Before ``run``,
        too; safe in a signal handler.
        """

    def close(self) -> None:
        """Free everything, where no ``run`` goes on. Other methods then act as on an empty table."""

    def abandon(self) -> None:
        """In a forked child: close the copies of all descriptors but the master sockets', and act on nothing that the
        parent has as well. It waits for no lock. Nobody is told anything; the table is empty then. If it is a handler
        that has forked, ``run`` returns in the child as soon as the handler does.
        """

    def client_ids(self) -> list[int]:
        """The ids of the clients that were let in and are connected, oldest first."""

    def client_count(self) -> int:
        """How many ``client_ids`` there are, in O(1)."""

    def attach(self, client_id: int) -> bool:
        """Ask for ``Callbacks.disconnect`` when this client goes. ``False`` if it isn't connected (any more), or waits
        to be let in.
        """

    def info(self, client_id: int) -> ClientInfo | None:
        """The row of a connected client, also of one that waits for its CIR; ``None`` if there is none."""

    def rows(self, among: Ids | None = None) -> Sequence[ClientInfo]:
        """The rows of the clients that were let in and are connected, oldest first: of all, or of those with one of
        these ids. Each is of one moment; together they needn't be.
        """

    def gone(self, most: int = 1000) -> Sequence[Gone]:
        """The last ones that were let in and went, of 1,000 so many, in that order; also when the loop has ended."""

    def find(self, name: str) -> int | None:
        """The id of the client that connected last under this name, of those let in."""

    def push(self, client_id: int, payload: Buffer) -> bool:
        """Send bytes the client didn't ask for: a PUSH, or one message of the framing.

        ``False`` if the client isn't connected (any more) or is draining. It never blocks: the queue of a client
        that doesn't read is bounded by ``Limits.push_hard``.

        :raises FrameTooLarge: the client said in its CIR that it takes less.
        :raises OSError: ENOBUFS: see :func:`pysock.engine.said.too_much_queued`.
        """

    def broadcast(self, payload: Buffer) -> int:
        """``push`` to every client that was let in and takes so many bytes; how many. In another thread than the
        loop's: how many there are at this moment, of whom some may be gone when the loop comes to it.

        :raises OSError: ENOBUFS: see :func:`pysock.engine.said.too_much_queued`.
        """

    def push_to(self, client_ids: Ids, payload: Buffer) -> int:
        """``push`` to each of these clients that is there and takes so many bytes; how many. In
        another thread than the loop's as ``broadcast``.

        :raises OSError: ENOBUFS: see :func:`pysock.engine.said.too_much_queued`.
        """

    def select(self, uid: int | None, name: str | None, among: Ids | None, but: int) -> Ids:
        """The ids, as ``push_to`` takes them, of the clients of whom all of this is true; ``None`` of any.

        :param uid: of the process at the other end of a Unix socket.
        :param name: a pattern for the name, see :mod:`pysock.base.patterns`.
        :param among: ids, of which it has one.
        :param but: an id that it hasn't.
        """

    def ask(self, client_id: int, frame: bytes, size: int) -> bool:
        """Send this frame: an ASK with a request of so many bytes, or an ASK_CANCEL. ``Callbacks.answered`` has the
        answer. ``False`` as for ``push``. Between turns, in the thread of ``begin``, ``wants_turn`` may be called.

        :raises FrameTooLarge: the client said in its CIR that it takes less.
        :raises UnsupportedOperation: it answers no requests.
        :raises OSError: ENOBUFS: see :func:`pysock.engine.said.too_much_queued`.
        """

    def disconnect(self, client_id: int, replaced: bool = False) -> bool:
        """Close this connection in order: nothing more is read, what was accepted is answered and flushed.

        :param replaced: it is told that another one has come by its name; in the loop's thread.
        """

    def answer(self, handle: int, reply: Any) -> bool:
        """Answer a deferred request: its work has ended. ``reply`` is what a handler may return, or the ``Exception``
        that made it fail. ``False``: nobody waits for it any more. In another thread than the loop's ``True`` says that
        the loop will see. Between turns, in the thread of ``begin``, ``wants_turn`` is called: a turn will send it.
        """

    #: ``send_more(handle, piece)`` sends a piece of the answer to a deferred request of a service that streams. In the
    #: loop's thread: 1: more may follow now; 0: not before ``Callbacks.flow`` says so; -1: nobody waits, or it can't be
    #: sent, which fails the request as if the handler had returned it: no more is sent, but ``answer`` is called still.
    #: In another thread: 1; or less, if there is no loop any more; what it may send it has to count.
    send_more: Callable[[int, Any], int]

    def current(self) -> Current | None:
        """The request whose handler runs, in the loop's thread. ``None``: none does, or the handler of a batch."""

    def waiting(self, handle: int) -> Current | None:
        """The deferred request that has this handle. ``None``: it is over. In the loop's thread."""

    def call_later(self, function: Callable[[], object]) -> bool:
        """Call this in the loop's thread when what the turn has made has been sent. ``False``: there is no loop any
        more.

        :raises OSError: as for ``stop``.
        """

    def notice(self, seconds: float | None, every: int = 0, most: int = 8) -> None:
        """From any thread: requests that take so long are told of from now on, by the callback ``served``, which there
        must be; ``None``: none is slow. Of all others each ``every``-th is told of, 0: none; but ``most`` a turn.

        Handlers are timed for a minute after a turn that took so long: before, one that came with others is unknown.
        """

    def watch(self, fd: int, ready: Callable[[], object] | None, writes: bool = False) -> None:
        """Call ``ready`` in the loop's thread whenever this descriptor is readable or at its end, and with ``writes``
        when it is writable; ``None``: no longer, before it is closed. In the loop's thread, or before ``run``.

        :raises OSError: it can't be watched.
        """

    #: Called between turns, once for each: one is wanted soon, though ``poll_fd`` isn't readable.
    wants_turn: Callable[[], None]

    def stats(self) -> EngineStats:
        """The counters."""


class Backend(NamedTuple):
    """One engine, complete: what ``choose`` returns."""

    name: str
    features: frozenset[str]
    engine: type[Engine]
    sockets: Sockets
    link: type[Link]
    inlet: type[Inlet]
    outlet: type[Outlet]
    tasks: tuple[Any, Any] | None = None  # the types Call and Starter of ``pysock/tasks/`` in C
    #: What can speak TLS in it, the best first: of ``"libssl"``, for a :class:`pysock.TLS` alone, and ``"ssl"``.
    tls_drivers: Callable[[], tuple[str, ...]] = lambda: ("ssl",)
