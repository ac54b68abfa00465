"""What several commands of the command line share: the parts of their arguments, options and help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

import pysock
from pysock.address import VERIFY, Address
from pysock.balance.policy import BALANCES
from pysock.balance.targets import checked_targets
from pysock.engine.choice import DRIVERS
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


def check_targets(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """The same of one address, or of several with commas between them."""
    try:
        checked_targets(value)
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


#: Of a server, by what they are to :class:`pysock.TLS`.
_TLS_FILES: Final = {
    "cert": "The server's certificate, in PEM form, for addresses tls://HOST:PORT.",
    "key": "Its key.  [default: in the same file]",
    "ca": "The authorities of clients' certificates.",
}


def tls_options(function: F) -> F:
    """Add ``--tls-cert``, ``--tls-key``, ``--tls-ca``, ``--tls-verify`` and ``--tls-driver``."""
    words = "What speaks TLS: OpenSSL itself, or Python's module ssl; auto: the first that is there."
    function = click.option("--tls-driver", type=click.Choice(DRIVERS), show_envvar=True, help=words)(function)
    words = "Whether clients need a certificate.  [default: require with --tls-ca, else none]"
    function = click.option("--tls-verify", type=click.Choice(VERIFY), show_envvar=True, help=words)(function)
    for name, text in reversed(_TLS_FILES.items()):
        option = click.option(f"--tls-{name}", type=click.Path(), metavar="PATH", show_envvar=True, help=text)
        function = option(function)
    return function


def tls_given(options: dict[str, Any]) -> pysock.TLS | None:
    """What these options say, if they say something."""
    given = {name: options[f"tls_{name}"] for name in (*_TLS_FILES, "verify") if options[f"tls_{name}"]}
    return pysock.TLS(**given) if given else None


def balance_option(function: F) -> F:
    """Add ``--balance``."""
    return click.option(
        "--balance",
        type=click.Choice(BALANCES),
        show_envvar=True,
        help="Of several ADDRs, with commas between them, which one: the first that answers, the one of two with fewer"
        " clients, or any.  [default: first]",
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
