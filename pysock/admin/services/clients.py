"""``clients``: who is connected, what each has done and waits for, and who has gone, and why. ``kill``: who is to go.

A table may be long, so it comes in pages, by the numbers of the clients: whoever comes or goes meanwhile makes nobody
be left out, or appear twice.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence

from pysock.admin.asked import Asked
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.directory.rows import ClientRow, LeftClient, Snapshot
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.clients import ClientTable
    from pysock.data import DataSocket
    from pysock.server import Server

#: Rows of a page at most: a few hundred bytes of JSON each, and some milliseconds of the GIL for all.
PAGE: Final = 1000

#: Of whom ``kill`` tells one by one.
_NAMED: Final = 1000

_LARGEST_UID: Final = 2**32 - 1


def clients(server: Server, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A page of the table.

    :param fields: ``uid``, ``name`` (a pattern) and ``group``: of whom all of this is true; ``after``: what ``next``
        was on the page before; ``limit``: rows of it, at most 1,000; ``gone``: so many of those that went last.
    """
    asked = Asked("clients", fields, ("uid", "name", "group", "after", "limit", "gone"))
    uid, name, group = asked.whole("uid", 0, _LARGEST_UID), asked.text("name"), asked.text("group")
    after, limit = asked.client("after") or 0, asked.whole("limit", 1, PAGE, PAGE)
    gone = asked.whole("gone", 0, 1000, 0)
    table = server.clients
    wanted = table._selected(uid, name, group)
    ids = sorted(table if wanted is None else array("Q", wanted))
    page = [one for one in ids if one > after][:limit]
    return {
        "at": time.time(),
        "total": len(ids),
        "clients": [shown_row(row) for row in rows_of(table, page)],
        "next": shown(page[-1]) if page and page[-1] != ids[-1] else None,
        "gone": [_shown_left(left) for left in table.left()[-gone:]] if gone else [],
    }


def rows_of(table: ClientTable, ids: Sequence[int]) -> Snapshot:
    """The rows of these that are there still."""
    engine = table._engine
    rows = [] if engine is None or not ids else engine.rows(array("Q", ids).tobytes())
    return Snapshot(rows, table.groups.of_all(), table.master_address)


def shown_row(row: ClientRow) -> dict[str, Any]:
    """A row as JSON has it: the id as people read it, and the name of the state."""
    return row._asdict() | {"id": shown(row.id), "state": row.state.name}


def _shown_left(left: LeftClient) -> dict[str, Any]:
    return shown_row(left.row) | {"reason": left.reason.name, "left_at": left.left_at}


def kill(server: Server, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Close connections in order: nothing more is read, what was accepted is answered.

    :param fields: ``id``, ``name`` (a pattern), ``uid`` or ``group``: of whom all that is given is true.
    """
    asked = Asked("kill", fields, ("id", "name", "uid", "group"))
    wanted = asked.client("id")
    uid, name, group = asked.whole("uid", 0, _LARGEST_UID), asked.text("name"), asked.text("group")
    if all(each is None for each in (wanted, uid, name, group)):
        raise ParameterError("id", "or name, uid or group must say whom: nobody is killed", name="'id'")
    found = _found(server, wanted, uid, name, group)
    for client in found:
        client.close()
    return {"killed": len(found), "ids": [shown(client.id) for client in found[:_NAMED]]}


def _found(
    server: Server, wanted: int | None, uid: int | None, name: str | None, group: str | None
) -> list[DataSocket]:
    if wanted is not None and uid is None and name is None and group is None:
        client = server.clients.get(wanted)
        return [] if client is None else [client]
    found = server.clients.where(uid=uid, name=name, group=group)
    return [client for client in found if wanted in (None, client.id)]
