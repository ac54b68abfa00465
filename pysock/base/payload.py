"""What may be sent: one check, shared by everything that sends."""

from __future__ import annotations

from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import FrameTooLarge

if TYPE_CHECKING:
    from typing import Any, Final

#: Whose limit it is that a client's payloads keep to.
SERVERS_LIMIT: Final = "the server's limit"


def checked(payload: Any, limit: int, whose: str) -> Buffer:
    """Return ``payload`` as bytes the engines take: itself, or a flat view of it.

    :param limit: the largest number of bytes allowed.
    :param whose: names that limit in the error message.
    :raises TypeError: it isn't bytes-like, or not contiguous in memory.
    :raises FrameTooLarge: it has more bytes than ``limit``.
    """
    # Two steps, so that the common case costs one comparison of types.
    if type(payload) is not bytes:
        payload = _flat(payload)
    if len(payload) > limit:
        raise FrameTooLarge(f"a payload of {len(payload)} bytes is over {whose} of {limit} bytes: send it in parts")
    return payload  # type: ignore[no-any-return]  # bytes, or what _flat returned


def checked_all(payloads: list[Any], limit: int) -> list[Buffer]:
    """Return all payloads, :func:`checked` against the server's limit."""
    return [checked(payload, limit, SERVERS_LIMIT) for payload in payloads]


def _flat(payload: Any) -> Buffer:
    if isinstance(payload, (bytes, bytearray)):
        return payload
    if isinstance(payload, str):
        raise TypeError('a payload must be bytes-like, not str: encode it first, for example with text.encode("utf-8")')
    try:
        view = memoryview(payload)
    except TypeError:
        raise TypeError(f"a payload must be bytes-like, not {type(payload).__name__}") from None
    if not view.c_contiguous:
        raise TypeError("a payload must be contiguous in memory: make a copy with bytes(payload) first")
    return view.cast("B")


def is_bytes_like(thing: object) -> bool:
    """Whether it has bytes that can be read."""
    try:
        memoryview(thing).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    except Exception:  # it has, but not now
        return True
    return True
