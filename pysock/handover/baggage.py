"""What a program keeps of a client, and what travels with it: ``client.data``, and the groups that it is in.

This file owns the question whether that can be written down, and its bytes. What is plain goes by itself; else the
program is asked, by ``@server.on_handover_out`` and ``on_handover_in``. A client never moves with its state missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import copy_context

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.errors import HandoverFailed
from pysock.handover.fields import decode_fields, encode_fields
from pysock.handover.plain import decode_plain, encode_plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from pysock.clients import ServedSocket
    from pysock.data import DataSocket
    from pysock.engine.contract import Engine
    from pysock.running import Running

_ID: Final = 8  # bytes of the client's id, which come first
_PLAIN: Final = 2
_WRITTEN: Final = 3  # by the program
_GROUP: Final = 4


class Stays(Exception):
    """What is kept of this client can't be written down."""


def packed(client: ServedSocket, hooks: Sequence[Callable[[DataSocket], Any]]) -> bytes | None:
    """What there is to be told of it; ``None``: nothing.

    :param hooks: the program's, asked for what isn't plain.
    :raises Stays: it says why.
    """
    fields = [(_GROUP, group.encode("utf-8", "surrogatepass")) for group in client.groups]
    if client.data is not None:
        fields.append(_data(client, hooks))
    return client.id.to_bytes(_ID, "little") + encode_fields(fields) if fields else None


def _data(client: ServedSocket, hooks: Sequence[Callable[[DataSocket], Any]]) -> tuple[int, bytes]:
    try:
        return _PLAIN, encode_plain(client.data)
    except ValueError as error:
        why = str(error)
    for hook in hooks:
        try:
            written = copy_context().run(hook, client)
            if written is not None:
                return _WRITTEN, memoryview(written).tobytes()
        except Exception as error:  # noqa: PERF203  # there is one, or two
            log.exception("the on_handover_out hook %r failed; it was called with %r", hook, client)
            raise Stays(f"its on_handover_out hook failed: {error!r}") from error
    raise Stays(f"{why}, and no on_handover_out hook wrote it down")


def all_packed(running: Running) -> tuple[dict[int, bytes], dict[int, str]]:
    """In the loop's thread: what goes with whom, and who stays, with the reason."""
    carried: dict[int, bytes] = {}
    stay: dict[int, str] = {}
    for client in running.clients.all_known():
        try:
            luggage = packed(client, running.hooks.on_handover_out)
        except Stays as error:
            stay[client.id] = str(error)
            continue
        if luggage is not None:
            carried[client.id] = luggage
    return carried, stay


def labelled(luggage: bytes) -> tuple[int, bytes]:
    """Whose it is, and the rest."""
    return int.from_bytes(luggage[:_ID], "little"), luggage[_ID:]


def unpacked(running: Running, engine: Engine, client_id: int, luggage: bytes) -> None:
    """Give it to this client, which isn't served yet.

    :raises HandoverFailed: it isn't as it may be, or the program's hook failed.
    """
    engine.attach(client_id)
    client = running.clients.obtain(client_id)
    try:
        for tag, value in decode_fields(memoryview(luggage)):
            _put(running, client, tag, bytes(value))
    except ValueError as error:
        raise HandoverFailed(f"what is kept of a client isn't as it may be: {error}") from error


def _put(running: Running, client: ServedSocket, tag: int, value: bytes) -> None:
    if tag == _PLAIN:
        client.data = decode_plain(value)
    elif tag == _GROUP:
        client.join(value.decode("utf-8", "surrogatepass"))
    elif tag == _WRITTEN:
        if not running.hooks.on_handover_in:
            raise HandoverFailed(f"the data of {client!r} was written by an on_handover_out hook, and no hook reads it")
        for hook in running.hooks.on_handover_in:
            try:
                copy_context().run(hook, client, value)
            except Exception as error:  # noqa: PERF203  # there is one, or two
                log.exception("the on_handover_in hook %r failed; it was called with %r", hook, client)
                raise HandoverFailed(f"the on_handover_in hook {hook!r} failed for {client!r}: {error!r}") from error


# --- those that the program knows -------------------------------------------------------------------


def asked(running: Running) -> list[int]:
    """The ids of those that haven't answered all that this server has asked them: nobody else could take the answer."""
    return [each.id for each in running.clients.all_known() if each.asks is not None and each.asks.are_open]


def discard(running: Running, engine: Engine, ids: Sequence[int]) -> None:
    """In the loop's thread: they are the other side's. Here they are gone, and no hook hears of it."""
    found = [client for one in ids if (client := running.clients.known(one)) is not None]
    known = [(client, engine.info(client.id)) for client in found]  # with its last figures
    engine.discard(ids)
    for client, row in known:
        running.clients.drop(client.id)
        client.gone(row)
