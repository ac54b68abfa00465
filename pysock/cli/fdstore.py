"""``pysock serve --fdstore``: clients stay connected while the service manager restarts the service."""

from __future__ import annotations

import _thread
import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import click

import pysock
from pysock.fdstore.keeping import keep, restore
from pysock.supervision.unit import Unit

log: Final = logging.getLogger(__name__)

fdstore_option: Callable[[Any], Any] = click.option(
    "--fdstore",
    is_flag=True,
    show_envvar=True,
    help="Leave clients and sockets in systemd's store at SIGTERM, and take them from there at the start: they stay"
    " connected while the service restarts. Its unit needs FileDescriptorStoreMax=.",
)


def keep_over_restarts(server: pysock.Server, unit: Unit | None, grace: float) -> None:
    """Take what the process before has left, and leave it at SIGTERM for the next one. Before the server's start."""
    if unit is None:
        log.warning("--fdstore: there is no service manager (NOTIFY_SOCKET isn't set), so nothing is kept")
        return
    store = unit.store
    restore(server, store)

    def leave(drain: Callable[[int, FrameType | None], Any]) -> None:
        unit.stops()
        if keep(server, store, grace):
            server.stop(grace)
        else:
            drain(signal.SIGTERM, None)

    @server.on_state
    def changed(_old: pysock.ServerState, new: pysock.ServerState) -> None:
        drain = signal.getsignal(signal.SIGTERM)
        if new is not pysock.ServerState.SERVING or not callable(drain):
            return

        def leave_first(number: int, frame: FrameType | None) -> None:
            signal.signal(number, drain)  # a second one ends it as ever
            _thread.start_new_thread(leave, (drain,))

        signal.signal(signal.SIGTERM, leave_first)
