"""What several commands of the command line share: the parts of their arguments, options and help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pysock.address import Address
from pysock.wire.framing import FRAMING_BY_NAME

F = TypeVar("F", bound=Callable[..., Any])

FRAMINGS: Final = [*FRAMING_BY_NAME]


def check_address(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    """Let pysock's own parser judge an address, or several; it stays text."""
    try:
        for address in [value] if isinstance(value, str) else value:
            Address.parse(address)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def example(text: str) -> str:
    r"""Return the end of a help text; ``\b`` keeps click from wrapping it."""
    return f"\b\nExample:\n  {text}"


def authkey_option(function: F) -> F:
    """Add ``--authkey-file``; what it names is for :func:`read_authkey`."""
    return click.option(
        "--authkey-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="PATH",
        show_envvar=True,
        help="The auth key that both ends have: the bytes of this file, but for one newline at its end.",
    )(function)


def timeout_option(function: F) -> F:
    """Add ``--timeout``."""
    return click.option(
        "--timeout",
        type=click.FloatRange(0, 86_400, min_open=True),
        default=10.0,
        show_envvar=True,
        help="Seconds to wait for the connection, and for each answer.",
    )(function)


def wait_option(function: F) -> F:
    """Add ``--wait``."""
    return click.option(
        "--wait",
        type=click.FloatRange(0, 86_400),
        default=0.0,
        show_envvar=True,
        help="Seconds to wait for a server that isn't up yet.",
    )(function)


def read_authkey(path: Path | None) -> bytes | None:
    """Return the auth key that the file holds; ``None`` where no file was named."""
    if path is None:
        return None
    key = path.read_bytes().removesuffix(b"\n")
    if not key:
        raise click.UsageError(f"--authkey-file: {path} is empty")
    return key
