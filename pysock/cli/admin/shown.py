"""How the commands to a running server show things to people: columns, times, sizes, and texts of others.

What a client calls itself goes to somebody's terminal: no character of it may be a command there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import click

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FORM: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def span_of(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """A time as people write it, in seconds: ``90``, ``10m``, ``5ms``."""
    if value is None:
        return None
    found = _FORM.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no time: write for example 90s, 10m or 5ms")
    return float(found[1]) * _UNITS[found[2] or "s"]


def plain(text: str) -> str:
    """The text, in which whatever isn't printable is written out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def span(seconds: float) -> str:
    """``4.2s``, ``17m``, ``3h``, ``12d``: two digits or so, for a column."""
    seconds = max(0.0, seconds)
    for unit, size, most in (("s", 1.0, 100.0), ("m", 60.0, 6000.0), ("h", 3600.0, 48 * 3600.0)):
        if seconds < most:
            number = seconds / size
            return f"{number:.1f}{unit}" if number < 10 else f"{number:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def short(seconds: float) -> str:
    """``42us``, ``3.1ms``, ``1.2s``: how long something took, with two digits or three."""
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g}{unit}"
    return span(seconds)


def size(number: float) -> str:
    """``812``, ``1.3k``, ``25M``: of bytes, or of whatever is counted, by thousands."""
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.1f}{unit}" if unit and number < 10 else f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.0f}T"


def columns(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> list[str]:
    """Lines of a table.

    :param head: what stands over the columns; those whose letter in ``right`` is ``>`` are flush right.
    """
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[number]) for row in table) for number in range(len(head))]
    kinds = right.ljust(len(head), "<")
    return [
        "  ".join(f"{cell:{kind}{width}}" for cell, kind, width in zip(row, kinds, widths, strict=True)).rstrip()
        for row in table
    ]
