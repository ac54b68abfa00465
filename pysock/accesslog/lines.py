"""The lines of an access log: ``what key=value ...``, for people and for programs that read logs.

A value is bare where it is plain; else, as all that clients choose themselves, it is shown as Python's ``repr()`` does,
so that no client can write lines of its own.
"""

from __future__ import annotations

import re

from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.directory.rows import LeftClient

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.rows import Served

_PLAIN: Final = re.compile(r"[\w.:/@%+*-]+", re.ASCII)


def line_of(what: str, fields: dict[str, Any]) -> str:
    """The line; what is ``None`` is left out."""
    return " ".join([what, *(f"{key}={_value(value)}" for key, value in fields.items() if value is not None)])


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else repr(text)


def connection_fields(left: LeftClient) -> dict[str, Any]:
    """Who it was, for how long, how much it did, and why it went."""
    row = left.row
    return {
        "client": shown(row.id),
        "name": row.name or None,
        "address": row.address,
        "via": row.via,
        "pid": row.pid,
        "uid": row.uid,
        "seconds": max(0.0, left.left_at - row.connected_at),
        "requests": row.requests,
        "in": row.bytes_in,
        "out": row.bytes_out,
        "reason": left.reason.name.lower(),
    }


def request_fields(request: Served, service: str | None, name: str | None) -> dict[str, Any]:
    """Whose it was, of which service, what became of it, how long it waited and took, and the sizes.

    :param service: its name; ``None``: it isn't known.
    :param name: of the client.
    """
    began = max(getattr(request.kept, "begun_at", 0.0), request.began)  # of one that a worker has had
    return {
        "client": shown(request.client_id) if request.client_id else None,
        "name": name or None,
        "service": service,
        "outcome": "failed" if request.failed else "ok",
        "waited": max(0.0, began - request.came),
        "took": max(0.0, request.ended - began),
        "in": request.size,
        "out": request.reply_size,
    }
