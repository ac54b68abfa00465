"""What the command line says where the library fails: the same, in words that fit a command.

The library's texts name the parameters of Python, and not always the server, which a program knows and a reader of one
line may not. This file owns how they are said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from pysock.address import Address
from pysock.errors import PysockError

#: Words of the library -> what the command line says instead.
OPTIONS: Final = {
    "pass authkey= to connect()": "give --authkey-file",
    "set authkey= there, or leave it out here": (
        "give it one there (--authkey-file, or authkey= of its Server), or leave out --authkey-file here"
    ),
    "set authkey=, listen": "give --authkey-file, listen",
    "or say insecure=True if": "or say --insecure if",
    "authkey= needs the framing": "--authkey-file needs the framing",
    "; nothing was sent (server_uid)": "; nothing was sent",
    "in_flight must be 1": "--in-flight must be 1",
    "give either a duration or a count": "give either --duration or --count",
}


@contextmanager
def as_commands_say(address: str = "") -> Iterator[None]:
    """Turn what the library raises into click's errors; with ``address``, that of the server, they name it."""
    try:
        yield
    except (PysockError, OSError) as error:  # before ValueError: a few are both, and no wrong usage
        text = in_options(explain(error))
        raise click.ClickException(naming(Address.parse(address), text) if address else text) from error
    except ValueError as error:
        raise click.UsageError(in_options(str(error))) from error


def in_options(text: str) -> str:
    """Return the text with options in place of parameters."""
    for parameter, option in OPTIONS.items():
        text = text.replace(parameter, option)
    return text


def naming(address: Address, text: str) -> str:
    """Return the text with the address in it."""
    return text if str(address) in text else f"{address}: {text}"


def explain(error: Exception) -> str:
    """Return what an exception says, without the number that an OSError puts in front."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
