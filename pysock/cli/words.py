"""What the command line says where the library fails: the same, in words that fit a command.

The library's texts name the parameters of Python, and not always the server, which a program knows and a reader of one
line may not. This file owns how they are said otherwise.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import click

from pysock.address import Address
from pysock.balance.targets import checked_targets
from pysock.errors import (
    GIVE_KEY,
    KEEP_OTHERS_OUT,
    KEY_AT_BOTH_ENDS,
    OTHER_SERVER_UID,
    ParameterError,
    PysockError,
)
from pysock.wire import texts

#: The options that aren't called like their parameters.
OPTIONS: Final = {
    "authkey": "--authkey-file",
    "tls": "--tls-cert",
    "cert": "--tls-cert",
    "key": "--tls-key",
    "ca": "--tls-ca",
    "verify": "--tls-verify",
}

#: What the library advises -> what follows the problem here.
ADVICE: Final = {
    GIVE_KEY: ": give --authkey-file",
    KEY_AT_BOTH_ENDS: (
        ": give it one there (--authkey-file, or authkey= of its Server), or leave out --authkey-file here"
    ),
    KEEP_OTHERS_OUT: (
        ": give --authkey-file, listen at 127.0.0.1 or [::1], or say --insecure if the network itself keeps others out"
    ),
    OTHER_SERVER_UID: "",
}


@contextmanager
def as_commands_say(address: str = "") -> Iterator[None]:
    """Turn what the library raises into click's errors; with ``address``, that of the server, they name it."""
    try:
        yield
    except (PysockError, OSError, ImportError) as error:  # before ValueError: a few are both, and no wrong usage
        text = in_options(error)
        raise click.ClickException(naming(checked_targets(address), text) if address else text) from error
    except ValueError as error:
        raise click.UsageError(in_options(error)) from error


def answered(text: str, service: str | None, names: Collection[str] | None) -> str:
    """Return what an ERROR of the server means; ``names`` are those of its services, where they are known."""
    if text.startswith(texts.NO_SUCH_SERVICE) and not service:
        names = None if names is None else [name for name in names if not name.startswith("_")]  # its own, for commands
        known = "" if names is None else f"; it has {', '.join(map(repr, names)) or 'no named ones either'}"
        advice = "" if names is not None and not names else ": choose one with --service"
        return f"the server has no unnamed service{known}{advice}"
    if _is_exception(text):
        return f"the server's handler failed with {text}; the traceback is in the server's log"
    return text


def _is_exception(text: str) -> bool:
    """Whether it looks like the name of one: that is all that a server tells of what its handler didn't catch."""
    known = getattr(builtins, text, None)
    is_builtin = isinstance(known, type) and issubclass(known, BaseException)
    return is_builtin or (text.isidentifier() and text.endswith(("Error", "Exception")))


def in_options(error: Exception) -> str:
    """Return what an exception says, with an option in place of a parameter, and advice for the command line."""
    advice = getattr(error, "advice", "")
    if advice in ADVICE:
        return f"{vars(error)['problem']}{ADVICE[advice]}"
    if isinstance(error, ParameterError) and error.name:
        option = OPTIONS.get(error.parameter) or f"--{error.parameter.replace('_', '-')}"
        return f"{option} {error.problem}"
    return explain(error)


def naming(addresses: tuple[Address, ...], text: str) -> str:
    """Return the text with the address in it, and the path of one that has none of its own; of several, as they are."""
    if len(addresses) > 1:
        told = any(str(address) in text for address in addresses)
        return text if told else f"{', '.join(map(str, addresses))}: {text}"
    (address,) = addresses
    whole = title = str(address)
    if address.transport == "unix" and not address.path:
        title = f"{whole} ({address.socket_file})"
    if text.startswith(f"{whole}: "):
        return title + text.removeprefix(whole)
    return text if whole in text else f"{title}: {text}"


def explain(error: Exception) -> str:
    """Return what an exception says, without the number that an OSError puts in front."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
