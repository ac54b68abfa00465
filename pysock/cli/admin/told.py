"""What ``pysock drain`` and ``pysock resume`` share: a server is told, by its admin socket or by a service that it has
for this at its own Unix sockets (:mod:`pysock.health.control`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

import pysock
from pysock.cli.admin.asking import admin_of, print_json
from pysock.cli.options import read_authkey
from pysock.health.control import DRAIN, RESUME

#: By the names of the commands.
_OWN: Final = {"drain": DRAIN, "resume": RESUME}


def told(address: str, name: str, authkey_file: Path | None, timeout: float, json: bool) -> None:
    """Have the server carry it out, and print the state that follows."""
    with admin_of(address, timeout, read_authkey(authkey_file)) as asker:
        if asker.is_admin:
            state = asker.ask(name)["state"]
        elif _OWN[name] in asker.services:
            state = asker.client.request(b"", service=_OWN[name]).decode("utf-8", "replace")
        else:
            raise pysock.PysockError(
                "this server takes no commands: those that pysock serve runs at a Unix socket do, and those whose"
                " program calls pysock.control(server)"
            )
    if json:
        print_json({"state": state})
    else:
        click.echo(f"{address}: {state}")
