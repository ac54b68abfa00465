"""Server: what a program sees of one server.

This file owns the public class and its words. What a server runs on is imported when the first one is made, since a
program that only has the name shall pay nothing; one that has a Server can give up its rights, or its root directory,
with nothing left to import.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import PysockError
from pysock.registration import Registration

if TYPE_CHECKING:
    from typing import Any

    from pysock.address import Address, AddressLike
    from pysock.base import kinds
    from pysock.clients import ClientTable
    from pysock.cluster.cluster import Cluster
    from pysock.limits import Limits
    from pysock.states import ServerState


class Server(Registration):
    """A server: one loop, one client table, any number of addresses. It runs once.

    A server that was started lives until it is stopped, whether or not the program keeps a reference to it; at the exit
    of the interpreter those that still run in the background are stopped at once, also those that :meth:`serve_forever`
    runs in a daemon thread of the program's. In a forked child it is closed, without a word to its clients and without
    harm to the parent's; whoever uses it there gets a :class:`PysockError`.

    :param addresses: where to listen, as texts, :class:`Address` or the ``Path`` of a socket file; at least one.
    :param framing: how bytes are cut into messages: ``"pysock"``, ``"u32"``, ``"line"`` or ``"raw"``.
    :param backend: ``"auto"``, ``"native"`` or ``"pure"``.
    :param name: of this server, for logs, for the name of its thread, and for the socket file where an address is
        ``unix:`` without a path and a name of its own.
    :param limits: what a client may cost; by default ``Limits()``.
    :param linger: how long to poll without sleeping before a wait. By default up to 20 microseconds, where that pays: a
        few milliseconds with polling are held against a few without, now and then, and it goes on if requests then come
        so much faster, or cost so much less, that it is worth the processor time of its thread. A number of seconds is
        obeyed without such trials, unless nothing is found; 0 switches polling off, 1 is the most. While another Python
        thread computes it is ten times as long, for a sleep costs a switch interval then.
    :param allow: who may connect to the Unix sockets (an error where there are none): ``{"uid": ..., "gid": ...}`` with
        numbers or names, one or several, of users and of groups (a peer's own or supplementary ones; of a peer in more
        than 256 the pure engine knows its own alone); a function ``allow(peer) -> bool``, called with ``(pid, uid,
        gid)``; or ``"anyone"``, to leave it to the file's permissions (an abstract name has none, so there it is an
        error). Over TLS: ``{"san": ...}`` with names, of which the client's certificate must have one, such as
        ``"spiffe://example/worker"``, or ``"*.example"``; and the function is called with a :class:`TLSInfo`. It opens
        no file: whom it names the socket file's mode must let in, too (``?mode=0666``, or a group). By
        default the permissions are left to decide where an address sets them (``mode``, ``user``, ``group``), and at
        the file of an inherited socket (``fd://N``), whose maker has set them; elsewhere the user who runs the server,
        and root. Others, and peers whose user the system doesn't tell, are refused before a byte of theirs is read.
        ``{"cn": ...}``, beside these or alone: of clients that come through a proxy (``?proxy=v2``) only those whose
        certificate the proxy has found good, with one of these common names.
    :param authkey: a secret that clients must prove to know, as the server does to them (HMAC-SHA256, without sending
        it). Nothing is encrypted. Only with the framing ``"pysock"``.
    :param insecure: listen also where other machines can connect, without an ``authkey``, and without certificates of
        clients.
    :param expose: what a client is told of an exception in a handler: ``"type"``, the name of its type; ``"message"``,
        what it says, too; ``"traceback"``, also where it was raised, for clients that may know the program's insides.
        The log has it all. The framings other than ``"pysock"`` tell nothing.
    :param loop: the asyncio loop that is made if there are async handlers and the program has none for the server:
        ``"auto"`` is uvloop, where that is installed; ``"asyncio"``, ``"uvloop"``, or a function that makes one.
    :param names: ``"unique"``: a client that comes by the name of one that is there takes its place. The older is told
        so by a goodbye, what it had asked for is answered, and then it is closed; it doesn't connect again by itself.
        Whoever may connect can take a name: so not among clients that don't trust each other.
    :param slow: what becomes of a client that doesn't read, where more pushes wait for it than ``limits`` allow:
        ``"disconnect"`` closes it; ``"drop-new"`` drops what is pushed to it then, ``"drop-old"`` what has waited
        longest, and the client is told how many it didn't get. One that doesn't understand that is closed.
    :param tls: what it speaks at addresses ``tls://HOST:PORT`` that name no certificate themselves: a :class:`TLS`, or
        an ``ssl.SSLContext``, which is taken as it is. Such an address is never served without. With a TLS that asks
        for certificates (``verify="require"``) no ``authkey`` is needed where other machines can connect.
    :param tls_driver: what does the work of TLS: ``"libssl"`` is the system's OpenSSL 3, called by the native engine
        without the GIL, for a :class:`TLS` alone; ``"ssl"`` is Python's own module, on both engines; ``"auto"`` is the
        first, where that can be.
    :param advertise: where clients reach the servers of this service, this one and the others: clients with
        ``connect(balance=...)`` ask for it, and how many clients this server has, by the service ``_nodes``. Empty, it
        is where this one listens. Without it there is no such service.
    :param metrics: count requests by service and outcome, and measure how long they take, where others can read it:
        :attr:`metrics`. ``True``: in memory of its own; a descriptor, or a :class:`pysock.metrics.Page`: there, where a
        supervisor reads it. See the page "Metrics".
    :param cluster: a cluster that this server is a node of: ``server.cluster`` reaches it. It implies ``advertise=()``.
    :param handover: ``"unix:PATH"``: where it waits for the process that follows it, of the same user. If one waits
        there when this server starts, it takes over from it, listeners and connected clients; the other one then ends.
    :param access_log: what the logger ``pysock.access`` is told by a thread beside the loop: ``"connections"``, one
        line for each that has ended; ``"requests:1/100"``, one for each 100th request; ``"requests"``, for as many as
        can be; or ``"connections,requests:1/100"``. See the page "Access log".
    :raises ValueError: a parameter is wrong; the message says which, and what would be right.
    :raises HandoverFailed: this system has no hand-overs.
    :raises ImportError: the native engine was asked for and isn't installed; or ``tls_driver="libssl"`` was, and there
        is no OpenSSL 3.
    """

    def __init__(
        self,
        *addresses: AddressLike,
        framing: kinds.FramingName = "pysock",
        backend: kinds.BackendName = "auto",
        name: str | None = None,
        limits: Limits | None = None,
        linger: float | None = None,
        allow: kinds.Allow | None = None,
        authkey: bytes | None = None,
        insecure: bool = False,
        expose: kinds.Expose = "type",
        loop: kinds.Loop = "auto",
        names: kinds.Names = "any",
        slow: kinds.Slow = "disconnect",
        tls: kinds.TLS | None = None,
        tls_driver: kinds.TLSDriver = "auto",
        advertise: kinds.Advertise | None = None,
        metrics: kinds.Metrics = False,
        cluster: Cluster | None = None,
        handover: AddressLike | None = None,
        access_log: str | None = None,
    ) -> None:
        from pysock.running import Running  # noqa: PLC0415  # see the head of this file

        self.name = name
        self._running = Running(
            self,
            addresses,
            framing=framing,
            backend=backend,
            limits=limits,
            linger=linger,
            allow=allow,
            authkey=authkey,
            insecure=insecure,
            expose=expose,
            loop=loop,
            names=names,
            slow=slow,
            tls=tls,
            tls_driver=tls_driver,
            advertise=advertise,
        )
        self.limits: Limits = self._running.limits
        super().__init__(self._running.services, self._running.hooks)
        if metrics is not False:
            self.measure(metrics)
        if access_log is not None:
            self.log_access(access_log)
        if handover is not None:
            from pysock.handover.relay import relay_of  # noqa: PLC0415  # most servers never hand over

            relay_of(self).wait_at(handover)
        self._cluster: Cluster | None = None
        if cluster is not None:
            self.join_cluster(cluster)

    # What is going on

    @property
    def clients(self) -> ClientTable:
        """The table of connected clients, alive."""
        return self._running.clients

    @property
    def cluster(self) -> Cluster:
        """The cluster that it is a node of, as it was given.

        :raises PysockError: it was made without ``cluster=``.
        """
        if self._cluster is None:
            raise PysockError("this server is no node of a cluster: make it with cluster=")
        return self._cluster

    def join_cluster(self, cluster: Cluster) -> None:
        """Be one that was made with ``cluster=``.

        :raises PysockError: it is a node of a cluster already, or it runs, or has run; or the cluster has a server.
        """
        if self._cluster is not None:
            raise PysockError("this server is a node of a cluster already")
        if self.state.name != "NEW":
            raise PysockError("this server runs, or has run, already: it can't join a cluster any more")
        cluster.bind(self, self._running)
        running = self._running
        if running.clients.nodes is None and running.services.has_names:
            running.services.advertise((), running.listening, running.clients, self.limits.max_clients)
        self._cluster = self._running.hooks.presence = cluster

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with the ports that the kernel chose; before the start, what was asked for."""
        return self._running.listening.addresses

    def listen_at(self, *addresses: AddressLike) -> None:
        """Listen at these addresses instead of those that it was made with; at least one.

        :raises ValueError: an address is wrong.
        :raises PysockError: it runs, or has run, already.
        """
        self._running.listen_at(addresses)

    def reload_tls(self) -> None:
        """Load the certificates of its :class:`TLS` from their files once more, for connections to come.

        Those that are there go on. A CA that is new in the ``ca`` file is trusted; one that is gone from it, not before
        a restart.

        :raises ValueError: they aren't good: the old ones are used on. The message says what is wrong.
        :raises PysockError: it has none, or what it has are contexts of the program's.
        """
        self._running.check_here()
        self._running.listening.reload_tls(self._running.engine)

    def advertise(self, *addresses: AddressLike) -> None:
        """From now on the servers of this service are these; clients that connect again hear of it at once. They leave
        a server that was among them and is no more, without an error. Any thread may.

        :raises ValueError: one isn't an address that clients can connect to.
        :raises PysockError: the server was made without ``advertise=``.
        """
        self._running.services.advertise_now(addresses, self._running.clients)

    @property
    def state(self) -> ServerState:
        """How far it has come."""
        return self._running.state

    @property
    def backend(self) -> str:
        """The name of its engine."""
        return self._running.backend.name

    def stats(self) -> dict[str, int]:
        """The counters since the start, by name; those of the end once it is closed."""
        return self._running.stats().by_name()

    def call_soon(self, function: Callable[..., object], /, *args: Any) -> None:
        """Have ``function(*args)`` called in the loop's own thread, soon; any thread may, a handler or a hook, too.

        What one thread hands over is done in that order, and so is what it pushes to clients meanwhile; never while a
        handler or a hook runs. What it raises is logged. What is left when the server ends isn't called.

        :raises TypeError: it can't be called, or is an ``async def``.
        :raises PysockError: the server doesn't run yet, or any more.
        :raises OSError: as for :meth:`DataSocket.send`, but for ``ENOBUFS``.
        """
        from pysock.directory.soon import call_soon  # noqa: PLC0415  # who never calls it doesn't pay for it

        call_soon(self._running.engine, self._running.hooks.held_up.timed, function, args)

    @property
    def took_over(self) -> int:
        """How many clients have come from the process before; 0 where there was none."""
        return self._running.relay.took_over

    @property
    def worker(self) -> int:
        """Under ``pysock serve --workers N`` the number of this process, from 0 to N - 1, which its successors have
        after it; otherwise 0.
        """
        from pysock.engine.seats import mine  # noqa: PLC0415  # see the head of this file

        return mine.worker

    @property
    def workers(self) -> int:
        """How many processes serve with this one, this one among them; otherwise 1."""
        from pysock.engine.seats import mine  # noqa: PLC0415  # likewise

        return mine.workers

    # Life

    def start(self) -> None:
        """Listen, and serve in a background thread. Returns when clients can connect.

        :raises ValueError: other machines can connect to an address, and there is no ``authkey``, nor ``insecure``; or
            an inherited socket has an abstract name, and the rule is ``allow="anyone"``; or all inherited ones are
            TCP, and there is a rule.
        :raises HandoverFailed: a server waits at ``handover=``, and nothing came of it: that one serves on.
        :raises OSError: an address can't be used; nothing made is left behind. Mostly one of its subclasses:
            :class:`AddressInUse`, ``FileNotFoundError``, ``PermissionError`` ...
        :raises PysockError: it runs, or has run, already; or its async handlers have no loop to run in; or this is a
            sub-interpreter without daemon threads; or threads are green ones here (gevent, eventlet), among which it
            would never return.
        """
        self._running.start()

    def serve_forever(self, *, grace: float = 10.0, drain_delay: float = 0.0) -> None:
        """Listen, and serve in this thread until :meth:`stop`.

        In the main thread SIGTERM does the same as ``stop(grace, drain_delay=drain_delay)``, SIGINT (Ctrl-C) the same
        without the delay, and this method then returns normally. A second signal ends it at once, also during the
        delay, with ``SystemExit(143)`` or ``KeyboardInterrupt``; where a handler doesn't return, that is logged 2
        seconds after the grace.

        :raises OSError: as :meth:`start`.
        :raises PysockError: as :meth:`start`.
        """
        self._running.serve_forever(grace, drain_delay)

    def lame(self) -> None:
        """Tell health checks that new clients should go elsewhere, and go on as before: it accepts, and answers.

        PINGs are answered with the code 5 (``client.ping().state`` is ``"draining"``), agents say so, too
        (:class:`pysock.health.Agent`). Any thread may call it, a handler and a signal's handler, too; also before the
        start. It is no state: :attr:`is_lame` tells. Called again it does nothing.
        """
        self._running.lameness.set(True)

    def resume(self) -> None:
        """End :meth:`lame`: new clients are welcome. Where it isn't lame it does nothing.

        :raises PysockError: it stops, or will when a ``drain_delay`` is over, or has ended.
        """
        self._running.lameness.set(False)

    @property
    def is_lame(self) -> bool:
        """Whether :meth:`lame` was called, or a ``drain_delay`` has begun, and no :meth:`resume` came after it."""
        return self._running.lameness.is_lame

    def stop(self, grace: float = 10.0, *, drain_delay: float = 0.0) -> None:
        """Drain and end: no new connections or requests, GOAWAY to the clients, what was accepted is answered, close.

        With ``drain_delay`` it is :meth:`lame` for so many seconds first: two intervals of the health checks of whoever
        sends the clients, so that none is sent any more when it says goodbye. Another call without it ends the delay.

        After ``grace`` seconds it ends regardless. It waits for the end, except in the loop's own thread (in a
        handler, or in a signal handler under :meth:`serve_forever`). A handler that doesn't return can't be ended:
        then it is logged, and this method returns 2 seconds after the grace. Called again it can only shorten the time.
        In a forked child it does nothing: the server is the parent's.
        """
        self._running.stop(grace, drain_delay)

    async def wait_closed(self) -> None:
        """Wait, in the asyncio loop that it is attached to by ``async with``, until it has ended.

        :raises PysockError: it is attached to none, or to another one.
        """
        from pysock.attached import wait_closed  # noqa: PLC0415  # as in aclose()

        await wait_closed(self._running)

    async def aclose(self, grace: float = 10.0, *, drain_delay: float = 0.0) -> None:
        """:meth:`stop`, and wait for the end while the other tasks go on.

        :raises PysockError: as :meth:`wait_closed`.
        """
        from pysock.attached import aclose  # noqa: PLC0415  # who has no asyncio loop doesn't import it

        await aclose(self._running, grace, drain_delay)

    async def __aenter__(self) -> Server:
        """Listen, and serve in the asyncio or uvloop loop that runs in this thread; no thread is made.

        It ends with the ``with`` statement, or with the loop.
        """
        from pysock.attached import attach  # noqa: PLC0415  # as in aclose()

        attach(self._running, self)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<Server{name} {self.state.name} {' '.join(map(str, self.addresses))} ({self.backend})>"


def serve(address: AddressLike | Iterable[AddressLike], handler: kinds.Handler, **options: Any) -> None:
    """Serve one handler at an address, or at several, until SIGTERM or Ctrl-C.

    :param handler: the unnamed service, called as ``handler(client, request)``.
    :param options: what :class:`Server` takes: ``framing``, ``limits``, ``allow``, ``authkey`` ...
    """
    from pysock.address import Address  # noqa: PLC0415  # as what a Server runs on

    addresses = [address] if isinstance(address, (str, Address, os.PathLike)) else list(address)
    server = Server(*addresses, **options)
    server.service()(handler)  # always as a handler: a text would be taken for a name otherwise
    server.serve_forever()
