"""What a server that is a node of a cluster tells it. The cluster stands above the server, which knows only this."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Any

    from pysock.engine.contract import Engine
    from pysock.states import ServerState


class Presence(Protocol):
    """A cluster, as the server sees it."""

    def bind(self, server: Any, running: Any) -> None:
        """It has this server as its node; it was made just now.

        :raises PysockError: it has one already.
        :raises ValueError: such a server can't be one.
        """

    @property
    def has_async(self) -> bool:
        """Whether it needs an asyncio loop."""

    def serve(self, engine: Engine) -> None:
        """The server is about to serve: it listens, and nobody was let in yet.

        :raises BusDown: the bus isn't there, and the program can't do without.
        """

    def status(self) -> dict[str, object]:
        """How it is, for who looks after the server. Any thread may."""

    def why_not_ready(self) -> str:
        """Why new clients should rather go elsewhere; empty: nothing is known."""

    def joined(self, client_id: int, *, moved: bool = False) -> None:
        """In the loop's thread: this client was let in; or has come from another process, which knows it as well."""

    def left(self, client_id: int) -> None:
        """In the loop's thread: it is gone."""

    def state_changed(self, state: ServerState) -> None:
        """How far the server has come."""
