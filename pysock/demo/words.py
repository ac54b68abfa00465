"""What a word is: the demo counts words line by line, and its total must equal what ``wc -w`` says of the file.

Everybody agrees about plain text: words are what blanks separate. For other characters it depends on the ``wc`` at
hand, on its version and on the locale. Does a no-break space separate words? Is a lone dash, a lone control
character or a byte that is no character at all a word? Here the ``wc`` at hand is asked about a few such cases, and
the first of the known definitions that gives the same answers is used. It is chosen before the file is counted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Final, NamedTuple

_BLANKS: Final = " \t\n\v\f\r"
_UNICODE_BLANKS: Final = _BLANKS + "\xa0\u1680\u2000-\u200a\u202f\u205f\u2060\u3000"
_PLAIN: Final = re.compile(rb"[ -~\t\n\v\f\r]*")


class Definition(NamedTuple):
    """Words are what is between separators, if there is something visible in it."""

    encoding: str  # an undecodable byte becomes a lone surrogate, which can be told from a character
    separators: re.Pattern[str]
    visible: re.Pattern[str]

    def count(self, text: bytes) -> int:
        """Return the number of words."""
        tokens = self.separators.split(text.decode(self.encoding, "surrogateescape"))
        return sum(1 for token in tokens if self.visible.search(token))


def _definition(encoding: str, blanks: str, visible: str) -> Definition:
    return Definition(encoding, re.compile(f"[{blanks}]+"), re.compile(visible, re.DOTALL))


#: POSIX's words first, then those of GNU wc 9.1 in the locale C and in UTF-8, then UTF-8 without an eye for visibility.
DEFINITIONS: Final = (
    _definition("latin-1", _BLANKS, r"."),
    _definition("latin-1", _BLANKS, r"[!-~]"),
    _definition("utf-8", _UNICODE_BLANKS, r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"),
    _definition("utf-8", _UNICODE_BLANKS, r"."),
)

#: The doubtful cases: the answers to them add up to a different number for each definition above.
PROBE: Final = "a\xa0b \u2014 \u2014 ".encode() + b"\x01 " * 4 + b"\xff " * 8


def counter_for(text: bytes) -> Callable[[bytes], int]:
    """Return the function that counts the words of this text, or of a line of it, as ``wc -w`` does."""
    if _PLAIN.fullmatch(text):
        return _count_plain
    answer = wc(PROBE)
    return next((rule.count for rule in DEFINITIONS if rule.count(PROBE) == answer), DEFINITIONS[0].count)


def _count_plain(line: bytes) -> int:
    return len(line.split())


def wc(text: bytes) -> int | None:
    """Return what the real ``wc -w`` says, in the user's own locale; ``None`` where there is no such program."""
    program = shutil.which("wc")
    if program is None:
        return None
    done = subprocess.run([program, "-w"], input=text, stdout=subprocess.PIPE, check=True)  # noqa: S603 -- no shell
    return int(done.stdout)
