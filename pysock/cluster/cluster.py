"""``pysock.Cluster``: what a program says that its server is a node of, and what it reaches other nodes' clients by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from pysock.base import forking
from pysock.base.deadlines import checked_timeout
from pysock.base.functions import checked_function
from pysock.base.lean import TYPE_CHECKING, TypeVar
from pysock.base.payload import checked
from pysock.base.unique import Unique
from pysock.cluster.bus.choice import bus_of
from pysock.cluster.checked import checked_client, checked_node, seconds_of
from pysock.cluster.directory.events import NodeEvent, StateEvent
from pysock.cluster.directory.words import ClusterState
from pysock.cluster.groups import ClusterGroup
from pysock.cluster.member import Member, Wanted
from pysock.cluster.services import Registered
from pysock.cluster.status import status_of, why_not_ready
from pysock.cluster.subjects import Subjects
from pysock.cluster.url import parted
from pysock.cluster.view import ClusterClient, ClusterClients, other_row
from pysock.cluster.waiting import settled
from pysock.directory.groups import checked_name
from pysock.directory.soon import call_soon
from pysock.errors import ConnectionLost, ParameterError, PysockError
from pysock.replies.current import shortened
from pysock.states import ServerState
from pysock.wire.service_name import encoded_name

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.base.kinds import Buffer
    from pysock.cluster.directory.events import Event
    from pysock.cluster.directory.words import NodeChange
    from pysock.cluster.sending import Spread
    from pysock.cluster.view import ClusterNode
    from pysock.engine.contract import Engine
    from pysock.running import Running
    from pysock.server import Server

F = TypeVar("F", bound="Callable[..., Any]")

#: How long ``required=True`` waits, in seconds.
REQUIRED: Final = 5.0


class Cluster(Unique):
    """Several servers that behave as one, over a bus: this one's part. ``Server(..., cluster=Cluster(url))``.

    Each node knows of all clients of all nodes, so that looking costs no message. What is sent arrives once or not at
    all, never twice, and isn't kept for later; in order from one node to one client on one path, of which there are
    three: :meth:`send`, :meth:`ClusterGroup.send` and :meth:`broadcast`. What is known of others is right within 5
    seconds, so a client that is seen may have gone.

    Whoever may use the bus can be a node: keep it for yourself. The messages between nodes have no signature.

    :param url: the bus: ``local:NAME`` or ``local:/PATH``, for the nodes of one machine and one user, which needs no
        other program; ``nats://HOST:4222`` for those of several, which needs the extra ``nats``.
    :param name: of the cluster; several may share a bus. Letters, digits, ``-`` and ``_``. ``None``: what follows the
        bus in the URL, as in ``nats://HOST:4222/NAME`` or ``local:BUS/NAME``, else ``default``.
    :param node: the name of this node, another one for each; ``None``: made of the host's name and the process's id.
    :param unique: of several clients of one name, on whatever nodes, one stays, ``"newest"`` or ``"oldest"``; the
        others are told that they were replaced. ``None``: all stay.
    :param required: the server doesn't start without the bus: it waits so many seconds for it, ``True`` for 5, and then
        raises :class:`BusDown`. ``False``: it starts, and is a node as soon as there is a bus.
    :param ready_without_bus: ``False``: while the bus is down ``/readyz`` (see :class:`pysock.metrics.Exporter`) says
        503, so that new clients are sent to servers that reach the others.
    :raises ParameterError: a parameter is wrong.
    :raises ImportError: what the bus needs isn't installed; the message says how to install it.
    """

    _instead = "make a new Cluster"

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        node: str | None = None,
        unique: str | None = None,
        required: bool | float = False,
        ready_without_bus: bool = True,
    ) -> None:
        self.name: str
        bus_url, self.name = parted(url, name)
        self.node: str = checked_node(node)
        if unique not in {None, "newest", "oldest"}:
            raise ParameterError("unique", f"must be 'newest' or 'oldest', or left out, not {unique!r}")
        self._required = seconds_of(REQUIRED if required is True else required)
        self._ready_without_bus = ready_without_bus
        self._unique = unique
        self._subjects = Subjects(self.name)
        self._bus = bus_of(bus_url, node=self.node, prefix=self._subjects.prefix)
        self._services = Registered()
        self._on_node: list[Callable[[ClusterNode, NodeChange], Any]] = []
        self._on_state: list[Callable[[ClusterState, ClusterState], Any]] = []
        self._running: Running | None = None
        self._member: Member | None = None
        self._elsewhere = ""
        forking.own(self)

    # What is known

    @property
    def state(self) -> ClusterState:
        """``LOST``: the bus is down, or the server doesn't run; ``SYNCING``; ``CONNECTED``: all nodes are known."""
        return ClusterState.LOST if self._member is None else self._member.directory.state

    def status(self) -> dict[str, object]:
        """How it is, for who looks after the server: ``name``, ``node``, ``state``, ``bus``, ``round_trip`` in seconds,
        ``dropped`` and ``foreign`` messages, how many ``nodes`` and ``clients``; ``why``, where the bus is down.
        """
        return status_of(self, self._bus, self._member)

    @property
    def nodes(self) -> list[ClusterNode]:
        """The nodes, this one first.

        :raises PysockError: the server doesn't run.
        """
        return self._here().view.nodes()

    @property
    def clients(self) -> ClusterClients:
        """The clients of all nodes, by their addresses: ``"NODE/1.7"``. ``server.clients`` are this node's alone.

        :raises PysockError: the server doesn't run.
        """
        return ClusterClients(self._here().view)

    def by_name(self, name: str) -> ClusterClient:
        """The client that has come last under this name, on whatever node.

        :raises KeyError: no client has it.
        :raises PysockError: the server doesn't run.
        """
        found = self._here().view.by_name(checked_client(name))
        if found is None:
            raise KeyError(name)
        return found

    def all_by_name(self, name: str) -> list[ClusterClient]:
        """All clients of this name, who came first first.

        :raises PysockError: the server doesn't run.
        """
        return self._here().view.all_by_name(checked_client(name))

    # To one client

    def send(self, to: str | ClusterClient, payload: Buffer, *, ack: bool = True, timeout: float = 2.0) -> Any:
        """Push to one client, on whatever node: whether it is in the client's queue. It arrives once or not at all.

        In a task of asyncio this is to be awaited; in other threads it blocks.

        :param to: a name, which means the client that has come last by it; or a row, of ``by_name`` say.
        :param ack: ``False``: wait for nothing, so that it may be called in the server's loop, too, and is never to be
            awaited. The result then says only whether such a client is known, and was sent to.
        :param timeout: how many seconds to wait for the other node.
        :returns: ``False``: there is no such client.
        :raises NodeGone: the node isn't there any more; surely nobody has got it.
        :raises BusDown: the bus is down; likewise.
        :raises DeliveryUnknown: no answer in time, or the bus went down before: it may have arrived, or may not.
        :raises FrameTooLarge: the payload is over ``Limits.max_payload`` here or there, over what the client takes, or
            over what the bus takes less 4 KiB.
        :raises OSError: ``ENOBUFS``, as for :meth:`pysock.DataSocket.send`.
        :raises PysockError: the server doesn't run; or this is its loop's thread, which must not wait.
        """
        member = self._here()
        row, data = self._found(member, to), checked(payload, member.limit, "Limits.max_payload")
        if not ack:
            return member.sending.push(row, data)
        seconds = seconds_of(timeout)
        return settled(
            "send", lambda waiter: member.sending.push_surely(row, data, seconds, waiter), self._is_loop, bool
        )

    def request(
        self, to: str | ClusterClient, payload: Buffer, service: str | None = None, timeout: float | None = 10.0
    ) -> Any:
        """Ask one client, on whatever node, as :meth:`pysock.DataSocket.request` does: the bytes that it answers.

        In a task of asyncio this is to be awaited; in other threads it blocks.

        :param to: as for :meth:`send`.
        :param timeout: how many seconds it has; the client is told when it is over. ``None``: no end.
        :raises ConnectionLost: there is no such client, or it went before it had answered.
        :raises RemoteError: it has answered with an error.
        :raises RequestTimeout: no answer in time.
        :raises NodeGone: as for :meth:`send`; so are ``BusDown``, ``DeliveryUnknown``, ``FrameTooLarge``, ``OSError``.
        :raises io.UnsupportedOperation: it answers no requests.
        :raises PysockError: the server doesn't run; or this is its loop's thread, which must not wait.
        """
        member = self._here()
        row, data = self._found(member, to), checked(payload, member.limit, "Limits.max_payload")
        if row is not None and row.epoch == member.directory.epoch:
            client = member.running.clients.get(row.id)
            if client is not None:
                return client.request(data, service, timeout)
            row = None
        if row is None:
            raise ConnectionLost(f"client {to if isinstance(to, str) else to.address!r} isn't connected to any node")
        name, found = encoded_name(service, "service"), row
        seconds = shortened(None if timeout is None else checked_timeout(timeout))
        return settled("request", lambda waiter: member.sending.ask(found, name, data, seconds, waiter), self._is_loop)

    def disconnect(self, to: str | ClusterClient, *, timeout: float = 2.0) -> Any:
        """Close a client's connection in order, on whatever node: whether it was there. To be awaited as :meth:`send`.

        :param to: as for :meth:`send`; so are the errors.
        """
        member = self._here()
        row, seconds = self._found(member, to), seconds_of(timeout)
        return settled("disconnect", lambda waiter: member.sending.close(row, seconds, waiter), self._is_loop, bool)

    # To many

    def group(self, name: str) -> ClusterGroup:
        """The clients of all nodes that are in the group of this name, into which :meth:`DataSocket.join` puts them.

        :raises ValueError: a group can't be called so.
        :raises PysockError: the server doesn't run.
        """
        return ClusterGroup(checked_name(name), self._here())

    def broadcast(self, payload: Buffer) -> Spread:
        """Push to every client of every node; it waits for nothing, so it may be called in the server's loop, too.

        At most once, never twice; whether the other nodes' clients get it isn't known.

        :raises FrameTooLarge: the payload is over ``Limits.max_payload``, or over what the bus takes less 4 KiB.
        :raises OSError: ``ENOBUFS``, as for :meth:`pysock.DataSocket.send`: too much waits for this node's loop.
        :raises PysockError: the server doesn't run.
        """
        member = self._here()
        return member.sending.to_all(checked(payload, member.limit, "Limits.max_payload"))

    # Between nodes

    def service(self, name: str) -> Callable[[F], F]:
        """Register a function that any node may call: ``handler(node, request)``, with the name of the node that calls.

        It runs in the server's loop, as handlers do, and may be ``async def``. It returns bytes, or ``None``.

        :raises ParameterError: the name is taken, or can't be one.
        :raises PysockError: the server has been started.
        """
        self._check_new()

        def decorate(handler: F) -> F:
            self._check_new()
            self._services.add(name, handler)
            return handler

        return decorate

    def call(self, service: str, payload: Buffer = b"", *, timeout: float | None = 10.0) -> Any:
        """Call a service of the cluster: one node that has it, maybe this one, does it once; the bytes that it returns.

        In a task of asyncio this is to be awaited; in other threads it blocks.

        :raises RemoteError: no node has it (``ErrorCode.NO_SUCH_SERVICE``), or it has failed.
        :raises RequestTimeout: no answer in time.
        :raises BusDown: as for :meth:`send`; so are ``DeliveryUnknown``, ``FrameTooLarge`` and ``PysockError``.
        """
        member = self._here()
        data = checked(payload, member.limit, "Limits.max_payload")
        encoded_name(service, "service")
        seconds = shortened(None if timeout is None else checked_timeout(timeout))
        return settled("call", lambda waiter: member.sending.call(service, data, seconds, waiter), self._is_loop)

    # Hooks

    def on_node(self, hook: F) -> F:
        """Have ``hook(node, change)`` called, in the server's loop, when another node comes, changes or goes.

        :raises PysockError: the server has been started.
        """
        return self._hooked(self._on_node, hook, "hook(node, change)")

    def on_state(self, hook: F) -> F:
        """Have ``hook(old, new)`` called, in the server's loop, when the state is another one.

        :raises PysockError: the server has been started.
        """
        return self._hooked(self._on_state, hook, "hook(old, new)")

    def _hooked(self, hooks: list[Any], hook: F, call: str) -> F:
        self._check_new()
        checked_function("hook", hook, call, "hooks are plain functions")
        hooks.append(hook)
        return hook

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r}, node {self.node!r}, {self.state}>"

    # What the server calls: see pysock.directory.presence.Presence. Not public.

    def bind(self, server: Server, running: Running) -> None:
        """It has this server as its node."""
        del server
        if self._running is not None:
            raise PysockError(f"this Cluster has a server already: {self._instead} for each")
        self._running = running

    @property
    def has_async(self) -> bool:
        """Whether one of its services needs an asyncio loop."""
        return self._services.has_async

    def why_not_ready(self) -> str:
        """Why new clients should rather go elsewhere; empty: nothing is known."""
        return "" if self._ready_without_bus else why_not_ready(self, self._bus)

    def serve(self, engine: Engine) -> None:
        """The server is about to serve."""
        assert self._running is not None
        wanted = Wanted(self.node, self._unique, self._services.handlers)
        self._member = Member(wanted, self._bus, self._subjects, self._running, engine, self._happened)
        self._member.begin()
        if self._required:
            self._member.wait(self._required)

    def joined(self, client_id: int, *, moved: bool = False) -> None:
        """A client was let in, or has moved here."""
        if self._member is not None:
            self._member.joined(client_id, moved)

    def left(self, client_id: int) -> None:
        """It is gone."""
        if self._member is not None:
            self._member.station.left(client_id)

    def state_changed(self, state: ServerState) -> None:
        """How far the server has come."""
        if state is ServerState.DRAINING and self._member is not None:
            self._member.drain()
        elif state is ServerState.CLOSED:
            member, self._member = self._member, None
            (self._bus.close if member is None else member.end)()

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, in which the threads aren't."""
        self._member, self._elsewhere = None, f"this cluster {why}"

    # Within

    def _check_new(self) -> None:
        if self._running is not None and self._running.state is not ServerState.NEW:
            raise PysockError("services and hooks of a cluster must be registered before its server is started")

    def _here(self) -> Member:
        if self._member is None:
            raise PysockError(self._elsewhere or "the server of this cluster doesn't run")
        return self._member

    @property
    def _is_loop(self) -> bool:
        return self._running is not None and self._running.hooks.asking.is_owner()

    def _found(self, member: Member, to: str | ClusterClient) -> ClusterClient | None:
        if isinstance(to, ClusterClient):
            return to
        if not isinstance(to, str):
            raise TypeError(f"a client of a cluster is meant by its name, or a row of cluster.clients, not {to!r}")
        return member.view.by_name(to)

    def _happened(self, event: Event) -> None:
        """In the station's thread."""
        if isinstance(event, NodeEvent):
            for hook in self._on_node:
                self._tell(hook, other_row(event.node), event.change)
        elif isinstance(event, StateEvent):
            for state_hook in self._on_state:
                self._tell(state_hook, event.old, event.new)

    def _tell(self, hook: Callable[..., object], *args: object) -> None:
        member = self._member
        if member is not None:
            timed = member.running.hooks.held_up.timed
            with suppress(PysockError, OSError):  # the loop has ended, or will notice by itself
                call_soon(member.engine, lambda _, call: timed("a hook of the cluster", call), hook, args)
