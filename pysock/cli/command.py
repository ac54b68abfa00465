"""What the commands to a running server share: they ask a service that it has for them, and say what it answers."""

from __future__ import annotations

from pathlib import Path

import click

import pysock
from pysock.cli.options import read_authkey
from pysock.cli.words import as_commands_say


def commanded(address: str, name: str, authkey_file: Path | None, timeout: float) -> None:
    """Have the server carry it out, and print the state that follows."""
    key = read_authkey(authkey_file)
    with as_commands_say(address), pysock.connect(address, timeout=timeout, authkey=key) as client:
        if name not in client.services:
            raise pysock.PysockError(
                "this server takes no commands: those that pysock serve runs at a Unix socket do, and those whose"
                " program calls pysock.control(server)"
            )
        state = client.request(b"", service=name).decode("utf-8", "replace")
    click.echo(f"{address}: {state}")
