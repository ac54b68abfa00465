"""For the tests that look at what stands on a terminal of 80 columns and 24 lines when a command has ended."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from typing import NamedTuple

from support import PATIENCE, environment

COLUMNS, LINES = 80, 24

_PIECE = re.compile(r"\x1b\[\??(?P<number>[0-9;]*)(?P<code>[A-Za-z])|(?P<letter>.)", re.DOTALL)


class Shown(NamedTuple):
    """A command's exit code, all that it wrote, and the lines that stand there at the end, also above the screen."""

    code: int
    written: str
    lines: list[str]


def on_a_terminal(*arguments: str, **changes: str) -> Shown:
    """Run ``pysock`` with a terminal as its input, output and errors."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pysock", *arguments],
        env=environment(TERM="xterm", **size, **changes),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    text = written.decode()
    return Shown(process.wait(PATIENCE), text, screen_of(text))


def screen_of(text: str) -> list[str]:
    """Return the lines that this text leaves, as a terminal of our width wraps them. Only what rich writes is known."""
    lines, row, column = [""], 0, 0
    for piece in _PIECE.finditer(text):
        code, letter = piece["code"], piece["letter"]
        if code == "A":
            row = max(0, row - int(piece["number"] or 1))
        elif code == "K":
            lines[row] = ""
        elif code is not None:
            assert code in "mhl", piece[0]
        elif letter == "\r":
            column = 0
        elif letter == "\n" or column == COLUMNS:
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        if letter is not None and letter not in "\r\n":
            lines[row] = lines[row][:column].ljust(column) + letter + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
