"""``pysock call``: one request, and its reply as it is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import click

import pysock
from pysock.cli.options import (
    authkey_option,
    balance_option,
    check_targets,
    example,
    read_authkey,
    timeout_option,
    wait_option,
)
from pysock.cli.words import answered, as_commands_say


@click.command(epilog=example('pysock call unix:upper.sock "hello"'))
@click.argument("address", metavar="ADDR", callback=check_targets)
@click.argument("payload", default="-")
@click.option("--service", show_envvar=True, help="The service's name.  [default: the unnamed service]")
@click.option("--stream", is_flag=True, show_envvar=True, help="Write each piece of a stream as it comes.")
@authkey_option
@timeout_option
@wait_option
@balance_option
def call(
    address: str,
    payload: str,
    service: str | None,
    stream: bool,
    authkey_file: Path | None,
    timeout: float,
    wait: float,
    balance: str | None,
) -> None:
    """Send one request and write the reply's bytes to standard output, exactly as they are.

    PAYLOAD is the request; "-" or nothing reads it from standard input. With --stream the timeout is for each piece.
    """
    request = standard_input() if payload == "-" else os.fsencode(payload)
    key = read_authkey(authkey_file)
    how = {"timeout": timeout, "authkey": key, "wait": wait or None, "balance": balance}
    with contextlib.closing(_answer(address, request, service, stream, how)) as pieces:
        for piece in pieces:
            click.echo(piece, nl=False)


def _answer(
    address: str, request: bytes, service: str | None, stream: bool, how: dict[str, Any]
) -> Generator[bytes, None, None]:
    """The reply, or its pieces. What goes wrong where they are written doesn't come by here: it's not the server's."""
    with as_commands_say(address), pysock.connect(address, **how) as client:
        try:
            if stream:
                yield from client.stream(request, service=service)
            else:
                yield client.request(request, service=service)
        except pysock.RemoteError as error:
            raise pysock.RemoteError(answered(str(error), service, client.services), error.code) from error


def standard_input() -> bytes:
    """Return all of it."""
    if sys.stdin is None:  # Python's way to say that the descriptor is closed
        raise click.UsageError("standard input is closed: give the PAYLOAD as an argument")
    return sys.stdin.buffer.read()
