"""Clients of one process of a service become those of the next: the first keeps them in the service manager's store
when it ends, the next takes them from there when it starts.

The hand-over is the same as between two processes that both live; here each side talks to one that stands for the
other.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from pysock.base.daemons import daemon
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.errors import HandoverFailed
from pysock.fdstore.bundle import Bundle, decode_bundle
from pysock.fdstore.playing import Playing
from pysock.fdstore.recording import Recording, flattened
from pysock.fdstore.store import Store
from pysock.files import passed
from pysock.handover import tags
from pysock.handover.channel import Channel, close_all
from pysock.handover.give import give
from pysock.handover.messages import Kind
from pysock.handover.options import Options
from pysock.handover.relay import take
from pysock.handover.sealed import read_sealed
from pysock.handover.take import hello

if TYPE_CHECKING:
    from typing import Final

    from pysock.running import Running
    from pysock.server import Server

#: Whether these fields are the same decides whether a server may have another one's clients; and what they mean.
_MUST_FIT: Final = ((tags.FRAMING, "framing"), (tags.KEY, "authkey"), (tags.ADDRESS, "addresses"))
_MOST: Final = 2**32 - 1


def keep(server: Server, store: Store, grace: float) -> bool:
    """Put the clients of a running server there, and what it listens at. Stop it then, which says goodbye to the rest.

    Not in the loop's thread.

    :param grace: seconds for what is in flight to be answered.
    :returns: whether they are there; if not, the server serves on, and the log says why.
    """
    with store.turn:  # else what is put there would be forgotten with what was taken from there
        return _keep(server, store, Options(grace=grace))


def _keep(server: Server, store: Store, options: Options) -> bool:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    recording = Recording(Channel(theirs.detach()), store, _hello(server._running), options)
    thread = daemon(recording.run, "pysock-fdstore")
    thread.start()
    try:
        given = give(server, ours.detach(), options=options)
    except HandoverFailed as error:
        log.warning("the clients aren't kept for the process that follows: %s", recording.failed or error)
        return False
    except Exception:  # there is no memory, say; and the service is to stop all the same
        log.exception("the clients aren't kept for the process that follows")
        return False
    finally:
        thread.join()
    log.info("%d clients are in the service manager's keeping, %d couldn't be kept", given.moved, given.drained)
    return True


def restore(server: Server, store: Store) -> bool:
    """Before its start: take what the process before has left in the store, if it has, when the server starts.

    What can't be taken, because the server is another one, is let go, and the log says why.

    :returns: whether there is something.
    """
    found = passed.stored()
    if not found:
        return False
    names = {name for _, name in found}
    files = [fd for fd, name in found if name.startswith(passed.STATE)]
    descriptors = [fd for fd, name in found if not name.startswith(passed.STATE)]
    try:
        bundles = [decode_bundle(read_sealed(fd)) for fd in files]
        _check(server._running, bundles)
    except (ValueError, OSError) as error:
        log.error("the clients of the process before can't be taken over, and are let go: %s", error)
        close_all(descriptors)
        _forget(store, names, settle=True)  # their locks are held there, too
        return False
    finally:
        close_all(files)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = Options()
    take(server, ours.detach(), options=options)
    playing = Playing(Channel(theirs.detach()), bundles, descriptors, options)

    def run() -> None:
        try:
            playing.run()
            _forget(store, names)  # else what this server closes would stay open there
        finally:
            store.turn.release()

    store.turn.acquire()
    daemon(run, "pysock-fdstore").start()
    return True


def _check(running: Running, bundles: Sequence[Bundle]) -> None:
    """:raises ValueError: they are of another server."""
    entries = [entry for one in bundles for entry in one.entries if entry.message.kind == Kind.HELLO]
    if len(entries) != 1:
        raise ValueError("what is there isn't whole")
    theirs, mine = flattened(entries[0].message), _hello(running)
    for tag, name in _MUST_FIT:
        if [value for known, value in theirs if known == tag] != [value for known, value in mine if known == tag]:
            raise ValueError(f"this server has other {name} than that one had")


def _hello(running: Running) -> list[tuple[int, bytes]]:
    return [
        (tag, _MOST.to_bytes(4, "little") if tag == tags.ROOM else value)
        for tag, value in hello(running)
        if tag not in {tags.LENT, tags.DOOR}
    ]


def _forget(store: Store, names: Iterable[str], settle: bool = False) -> None:
    try:
        store.forget(names)
        if settle:
            store.settle()
    except HandoverFailed as error:
        log.error("the service manager's store can't be emptied, so what is closed here isn't for its peer: %s", error)
