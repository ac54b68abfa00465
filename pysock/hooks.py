"""What happens in Python when the engine calls: hooks, data sockets for handlers, failures.

This file owns the border between the engine's callbacks and the user's functions: everything a user's function may
raise ends here, in one log record; where the client isn't let in, in one a second at most, for anybody can come and be
refused. What gets past it all the same ends in the guard around each callback, see :mod:`pysock.engine.guards`.
Whatever a client chose itself, its name above all, is logged with ``%r``, so that no client can write lines of its own
into a log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context

from pysock.access.rule import Rule
from pysock.asking.asking import Asking
from pysock.base.functions import is_async, settled
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import ERROR, INFO, Seldom
from pysock.base.logs import server_log as log
from pysock.causes import level_and_line
from pysock.clients import ClientTable, ServedSocket
from pysock.data import DataSocket
from pysock.directory.rows import ClientRow, LeftClient
from pysock.engine.contract import Callbacks
from pysock.engine.deferral import Deferrals
from pysock.engine.guards import apart, guarded
from pysock.engine.noticing import Noticing
from pysock.errors import ConnectionRefused, PysockError
from pysock.failures import Failed, HeldUp, encoded, text_of
from pysock.replies.later import deferred_of
from pysock.services import Services
from pysock.states import DISCONNECT_REASONS, ConnectionState, DisconnectReason, ServerState
from pysock.wire import texts
from pysock.wire.format import LARGEST_REASON, fitting

if TYPE_CHECKING:
    from typing import Any

    from pysock.access.sans import Judge
    from pysock.accesslog.log import AccessLog
    from pysock.directory.presence import Presence
    from pysock.engine.contract import Engine
    from pysock.tasks.tasks import Tasks
    from pysock.wire.auth import ServerProof


class Hooks:
    """The user's hooks of one server, and the callbacks that the engine gets instead of them."""

    def __init__(self, clients: ClientTable, services: Services, expose: str) -> None:
        self._expose = expose
        self._clients = clients
        self._services = services
        #: What clients are asked.
        self.asking: Asking = Asking(clients.known)
        clients.asking = self.asking
        #: Requests whose handlers answer later.
        self.deferrals: Deferrals = Deferrals(deferred_of)
        #: Whoever keeps the loop from serving others.
        self.held_up: HeldUp = HeldUp(services)
        #: Whether a client that comes replaces the one of its name.
        self.unique: bool = False
        self._engine: Engine | None = None
        #: Told of which trace a client's next request is a part, see ``Callbacks.traced``; or ``None``.
        self.traced: Callable[[int, int, bytes], None] | None = None
        #: Of each connection that has ended, or of requests.
        self.access_log: AccessLog | None = None
        #: Who is told of requests that are over.
        self.noticing: Noticing = Noticing()
        self.on_connect: list[Callable[[DataSocket], bool | None]] = []
        self.on_join: list[Callable[[DataSocket, ClientRow], Any]] = []
        self.on_leave: list[Callable[[DataSocket, LeftClient], Any]] = []
        self.on_disconnect: list[Callable[[DataSocket, DisconnectReason], Any]] = []
        #: What writes down what a client's ``data`` is when it moves to another process, and reads it there.
        self.on_handover_out: list[Callable[[DataSocket], bytes | None]] = []
        self.on_handover_in: list[Callable[[DataSocket, bytes], Any]] = []
        self.on_state: list[Callable[[ServerState, ServerState], Any]] = []
        #: The cluster that the server is a node of.
        self.presence: Presence | None = None
        #: Asked of each client that speaks TLS, before the hooks.
        self.judge_tls: Judge | None = None
        #: Where async ones run.
        self.tasks: Tasks | None = None
        self._rule: Rule | None = None
        self._refused = Seldom(log, INFO, "refused %r: %r")
        self._broken = Seldom(log, ERROR, "the on_connect hook %r failed for %r")

    def begin(self, engine: Engine) -> None:
        """It is about to serve."""
        self.serve(engine)
        if self.presence is not None:
            self.presence.serve(engine)
        if self.access_log is not None:
            self.access_log.begin(engine, self._clients.master_address)

    def end(self) -> None:
        """It has served; the engine is there still."""
        if self.access_log is not None:
            self.access_log.end()

    def serve(self, engine: Engine) -> None:
        """What is answered later is this one's."""
        self._engine = engine
        self.deferrals.serve(engine)
        self.asking.serve(engine)
        self._services.work_for(engine)
        self.noticing.serve(engine)

    @property
    def watch_disconnects(self) -> bool:
        """Whether every client that goes matters, also one that no handler ever saw."""
        return bool(self.on_connect or self.on_join or self.on_leave or self.on_disconnect or self.presence)

    @property
    def has_async(self) -> bool:
        """Whether one needs an asyncio loop."""
        return any(map(is_async, self.on_disconnect)) or (self.presence is not None and self.presence.has_async)

    def callbacks(self, draining: Callable[[], None], rule: Rule, proof: ServerProof | None) -> Callbacks:
        """What the engine is to call.

        :param proof: of the auth key, if there is one.
        """
        timed = self.held_up.timed
        self.judge_tls = rule.judge_tls if self._clients.speaks_tls else None
        asks = self.on_connect or self.unique or self.judge_tls or rule.names is not None
        self._rule = rule
        return guarded(
            _callback_failed,
            challenge=proof and proof.challenge,
            prove=proof and proof.prove,
            # These run the user's functions, or the host's logging.
            allow=rule.ask and apart(timed("the function allow=", rule.ask)),
            noted=apart(_noted),
            connect=apart(timed("an on_connect hook", self._connect)) if asks else None,
            joined=apart(timed("an on_join hook", self._joined)) if self.on_join else self.presence and self._came,
            disconnect=apart(timed("an on_disconnect or on_leave hook", self._disconnect)),
            held_up=apart(self.held_up.turn),
            served=apart(self.noticing.tell),
            failed=apart(Failed(self._clients, self._services, self._expose)),
            draining=apart(draining),
            log=apart(_log),
            defer=self.deferrals.defer,
            ended=self.deferrals.ended,
            flow=self.deferrals.flow,
            answered=self.asking.answered,
            traced=self.traced,
            # These don't, and are called for each connection.
            client=self._clients.obtain,
            dropped=self._clients.drop,
        )

    def state_changed(self, old: ServerState, new: ServerState) -> None:
        """Tell those who want to know."""
        for hook in self.on_state:
            _call("on_state", hook, old, new)
        if self.presence is not None:
            self.presence.state_changed(new)

    def _connect(self, client_id: int) -> str | None:
        client = self._clients.obtain(client_id)
        reason = texts.NOT_ALLOWED if self._is_unnamed(client) else self._first_refusal(client)
        if reason is not None:
            self._refused.tell(client, reason)
        # One that a hook closed is refused all the same, and for neither will there be a disconnect.
        if reason is not None or _is_ending(client):
            self._clients.forget(client_id)
        elif self.unique:
            self._replace(client)
        return reason

    def _is_unnamed(self, client: ServedSocket) -> bool:
        """Whether it comes where proxies say who clients are, and isn't one of those that may."""
        rule = self._rule
        return rule is not None and rule.names is not None and client.is_proxied and not rule.admits(client.proxy)

    def _replace(self, client: DataSocket) -> None:
        """Who has its name goes: it is let in now."""
        engine = self._engine
        older = engine.find(client.name) if engine is not None and client.name else None
        if older is not None:
            self.replace(older)

    def replace(self, client_id: int) -> None:
        """In the loop's thread: this client goes, since another one has its name, and is told so."""
        if self._engine is not None:
            self._clients.let_go(self._clients.obtain(client_id))
            self._engine.disconnect(client_id, True)

    def _first_refusal(self, client: DataSocket) -> str | None:
        if self.judge_tls is not None and self._clients.came_by_tls(client.id):
            tls = client.tls
            if tls is None or not self.judge_tls(tls):
                return texts.NOT_ALLOWED
        for hook in self.on_connect:
            if (reason := self._asked(hook, client)) is not None:
                return reason
        return None

    def _asked(self, hook: Callable[[DataSocket], Any], client: DataSocket) -> str | None:
        try:
            answer = settled(copy_context().run(hook, client))
            return texts.NOT_ALLOWED if answer is not None and not answer else None
        except ConnectionRefused as refusal:
            return _told(refusal)
        except Exception:
            # Its details are nobody's business outside.
            self._broken.tell(hook, client, traceback=True)
            return texts.NOT_ALLOWED

    def _came(self, client_id: int) -> None:
        """Nobody but the cluster wants to know."""
        if self.presence is not None:
            self.presence.joined(client_id)

    def _joined(self, client_id: int) -> None:
        self._came(client_id)
        client = self._clients.obtain(client_id)
        for hook in self.on_join:
            if (row := self._clients.row(client_id)) is not None:
                _call("on_join", hook, client, row)

    def _disconnect(self, client_id: int, reason: int) -> None:
        if self.presence is not None:
            self.presence.left(client_id)
        if self.on_disconnect or self.on_leave:
            self._clients.obtain(client_id)
        client = self._clients.forget(client_id)
        if client is None:
            return
        for hook in self.on_disconnect:
            if self.tasks is not None and is_async(hook):
                self.tasks.run_hook(hook, client, DISCONNECT_REASONS[reason])
            else:
                _call("on_disconnect", hook, client, DISCONNECT_REASONS[reason])
        if self.on_leave:
            left = self._clients.left_row(client, reason)
            for leave_hook in self.on_leave:
                _call("on_leave", leave_hook, client, left)


def _is_ending(client: DataSocket) -> bool:
    try:
        return client.state >= ConnectionState.DRAINING
    except PysockError:  # the hook forked, and this is the child: the client is its parent's
        return False


def _call(what: str, hook: Callable[..., Any], *arguments: Any) -> None:
    try:
        copy_context().run(hook, *arguments)  # what it sets is seen by no other
    except Exception:
        log.exception("the %s hook %r failed; it was called with %r", what, hook, arguments)


def _told(refusal: ConnectionRefused) -> str:
    """What a refused client is told: no more than fits, and no NUL, where C would see its end."""
    text = encoded(text_of(refusal, "reason", texts.NOT_ALLOWED).replace("\0", ""))
    return fitting(text, LARGEST_REASON).decode()


def _callback_failed(name: str, error: Exception) -> None:
    log.error("pysock's own callback %r failed", name, exc_info=error)


def _log(level: int, message: str) -> None:
    log.log(level, "%s", message)


def _noted(cause: int, times: int) -> None:
    level, line = level_and_line(cause, times)
    log.log(level, "%s", line)
