"""``pysock drain``: a server tells health checks that new clients should go elsewhere, and serves on."""

from __future__ import annotations

from pathlib import Path

import click

from pysock.cli.command import commanded
from pysock.cli.options import authkey_option, check_address, example, timeout_option
from pysock.health.control import DRAIN


@click.command(epilog=example("pysock drain unix:upper.sock"))
@click.argument("address", metavar="ADDR", callback=check_address)
@authkey_option
@timeout_option
def drain(address: str, authkey_file: Path | None, timeout: float) -> None:
    """Have health checks of the server fail, so that no new clients are sent to it; all else goes on.

    ADDR is a Unix socket of a server that pysock serve runs, or that calls pysock.control(); it obeys its own user and
    root. Until pysock resume.
    """
    commanded(address, DRAIN, authkey_file, timeout)
