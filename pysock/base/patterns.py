"""Names held against patterns.

``*`` is any text, ``?`` any character, ``[a-z_]`` one of these, ``[!a-z_]`` none of them: as
:func:`fnmatch.fnmatchcase` has it. But that one fails in some versions of Python, and does odd things in others, where
a range has its end before its beginning: here nothing is in such a range. ``csrc/base/match.c`` does the same, and a
test holds the two together.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@lru_cache(maxsize=64)
def matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return what says of a text whether it matches this pattern as a whole."""
    parts, at = [""], 0  # what stands between the stars
    while at < len(pattern):
        character = pattern[at]
        end = _end_of_set(pattern, at + 1) if character == "[" else -1
        if end >= 0:
            parts[-1] += _one_of(pattern[at + 1 : end])
        elif character == "*":
            parts.append("")
        else:
            parts[-1] += "." if character == "?" else re.escape(character)
        at = max(at, end) + 1
    return re.compile(_joined(parts), re.DOTALL).fullmatch


def _joined(parts: list[str]) -> str:
    """Each star takes as little as it can, and isn't tried again: else many of them would take for ever."""
    first, *middle = parts[:-1] or parts
    stars = (f"(?=(?P<s{number}>.*?{part}))(?P=s{number})" for number, part in enumerate(middle))
    return first + "".join(stars) + (f".*{parts[-1]}" if len(parts) > 1 else "")


def _end_of_set(pattern: str, at: int) -> int:
    """Where the ``]`` is that ends the set that begins here; -1: there is none, and the ``[`` stands for itself."""
    at += pattern[at : at + 1] == "!"
    at += pattern[at : at + 1] == "]"
    return pattern.find("]", at)


def _one_of(characters: str) -> str:
    """The expression for a set."""
    negated = characters.startswith("!")
    at, ranges = int(negated), []
    while at < len(characters):
        first = last = characters[at]
        if characters[at + 1 : at + 2] == "-" and at + 2 < len(characters):
            last = characters[at + 2]
            at += 2
        at += 1
        if first <= last:
            ranges.append(f"{re.escape(first)}-{re.escape(last)}")
    if ranges:
        return f"[{'^' * negated}{''.join(ranges)}]"
    return "." if negated else "(?!)"
