"""How a client id is shown to people: ``1.7`` is the seventh slot in its first use, not ``4294967303``.

The number has two halves: how often the slot in the client table was used, and the number of the slot, with that of its
loop in front, which is 0.
"""

from __future__ import annotations

_HALF = 32


def shown(client_id: int) -> str:
    """The id as people get to read it, in every log line, error and ``repr()``."""
    return f"{client_id >> _HALF}.{client_id & (1 << _HALF) - 1}"


def read(text: str) -> int | None:
    """The id that :func:`shown` shows so; ``None`` for what it never shows."""
    use, dot, slot = text.partition(".")
    if not (dot and use.isdecimal() and slot.isdecimal() and len(text) <= 21):  # two times 32 bits
        return None
    client_id = (int(use) << _HALF) | int(slot)
    return client_id if shown(client_id) == text else None
