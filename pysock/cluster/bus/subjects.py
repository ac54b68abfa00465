"""Subjects as bytes: whether a text is one, asked once of each.

A subject goes to three engines whose rules differ, so it is of what all of them take as it stands: NATS has wildcards
(``*``, ``>``), and Redis patterns (``*``, ``?``, ``[``).
"""

from __future__ import annotations

from functools import lru_cache

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

#: The length of one is a byte in the frames of the local bus. NATS advises at most 256.
SUBJECT_BYTES_MAX: Final = 255

_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def is_word(text: str) -> bool:
    """Whether it can be one of a subject's words."""
    return bool(text) and _LETTERS.issuperset(text)


@lru_cache(maxsize=16384)
def encoded(subject: str) -> bytes:
    """The bytes of a subject.

    :raises ParameterError: it is none.
    """
    if len(subject) > SUBJECT_BYTES_MAX:
        problem = f"must be of at most {SUBJECT_BYTES_MAX} characters, not {len(subject)}"
        raise ParameterError("subject", problem, name="a subject")
    if not all(is_word(word) for word in subject.split(".")):
        problem = f"must be of words with dots between them, each of letters, digits, - and _, not {subject!r}"
        raise ParameterError("subject", problem, name="a subject")
    return subject.encode("ascii")
