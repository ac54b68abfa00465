"""What the commands to a running server share: they find its admin socket, ask a service there, and get its answer.

This file owns where that socket is looked for, and the words where there is none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

import pysock
from pysock.address import Address
from pysock.admin.desk import ADMIN
from pysock.admin.place import beside
from pysock.cli.options import check_address, timeout_option
from pysock.cli.words import as_commands_say

F = TypeVar("F", bound=Callable[..., Any])

_NONE: Final = (
    "this is no admin socket, and there is none beside it: start the server by pysock serve --admin, or with"
    " pysock.Admin(server) in its program"
)


class Asker:
    """An admin socket that is connected.

    :ivar address: where it is.
    """

    def __init__(self, address: str, client: Any) -> None:
        self.address = address
        self.client = client

    @property
    def services(self) -> Any:
        """Which it has, by name."""
        return self.client.services

    @property
    def is_admin(self) -> bool:
        """Whether it is one at all."""
        return ADMIN in self.client.services

    def ask(self, service: str, **fields: Any) -> dict[str, Any]:
        """Its answer. Fields that are ``None`` are left out.

        :raises click.ClickException: it has no such service, or says no.
        """
        if not self.is_admin:
            raise pysock.PysockError(_NONE)
        if service not in self.client.services:
            raise pysock.PysockError(f"this admin socket has no service {service!r}: its server is of another version")
        given = {name: value for name, value in fields.items() if value is not None}
        found: dict[str, Any] = json.loads(self.client.request(json.dumps(given).encode(), service=service))
        return found


@contextmanager
def admin_of(address: str, timeout: float, authkey: bytes | None = None) -> Iterator[Asker]:
    """The admin socket that is meant: the one beside this address, where there is one, else what is there itself."""
    found = Address.parse(address)
    near = beside(found)
    where = address if near is None or not _is_there(near) else str(near)
    key = authkey if where == address else None
    with as_commands_say(where), pysock.connect(where, timeout=timeout, authkey=key) as client:
        yield Asker(where, client)


def _is_there(address: Address) -> bool:
    """Whether somebody has made it. An abstract name has no file, and the system a list of them all (proc(5))."""
    if address.transport == "unix":
        return os.path.exists(address.path)
    try:
        with open("/proc/net/unix", "rb") as names:
            wanted = b"@" + os.fsencode(address.path)
            return any(line.rstrip(b"\n").endswith(b" " + wanted) for line in names)
    except OSError:
        return False


def admin_options(function: F) -> F:
    """Add the ADDR, ``--timeout`` and ``--json``."""
    return admin_options_but_timeout(timeout_option(function))


def admin_options_but_timeout(function: F) -> F:
    """The same for a command with a ``--timeout`` of its own."""
    function = click.option("--json", is_flag=True, show_envvar=True, help="Print the answer as JSON.")(function)
    return click.argument("address", metavar="ADDR", callback=check_address)(function)


def print_json(answer: Mapping[str, Any]) -> None:
    """One line."""
    click.echo(json.dumps(answer))
