"""As much of HTTP/1.1 as a scraper needs, without I/O: one request without a body, one answer, and the end; RFC 9112.

This file owns what is asked for and how it is answered, not what is told.
"""

from __future__ import annotations

import gzip

from pysock._version import __version__
from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: How long the head of a request may be.
HEAD_MAX: Final = 8 * 1024
#: Shorter answers aren't worth compressing.
_GZIP_FROM: Final = 1400

_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
TEXT: Final = "text/plain; charset=utf-8"


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    fields: Mapping[str, str]  #: by their names in lower case


class Answer(NamedTuple):
    """What is answered."""

    status: int
    text: str
    kind: str = TEXT


def head_end(data: bytes | bytearray) -> int:
    """Where the head ends; -1: not yet."""
    return data.find(b"\r\n\r\n")


def asked(head: bytes) -> Asked | None:
    """What a head asks for; ``None``: it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return None
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            return None
        name = name.lower()
        fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
    return Asked(words[0], words[1].partition("?")[0], fields)


def answered(answer: Answer, request: Asked | None) -> bytes:
    """The bytes of an answer."""
    body, more = answer.text.encode("utf-8", "replace"), ""
    if request is not None and len(body) >= _GZIP_FROM and _takes_gzip(request.fields.get("accept-encoding", "")):
        body, more = gzip.compress(body, 1), "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
    if answer.status == 405:
        more += "Allow: GET, HEAD\r\n"
    head = (
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}\r\nServer: pysock/{__version__}\r\n"
        f"Content-Type: {answer.kind}\r\nContent-Length: {len(body)}\r\n{more}"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    ).encode()
    return head if request is not None and request.method == "HEAD" else head + body


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        kind, _, quality = part.replace(" ", "").partition(";")
        if kind == "gzip":
            return quality not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
