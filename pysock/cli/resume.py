"""``pysock resume``: the end of ``pysock drain``."""

from __future__ import annotations

from pathlib import Path

import click

from pysock.cli.command import commanded
from pysock.cli.options import authkey_option, check_address, example, timeout_option
from pysock.health.control import RESUME


@click.command(epilog=example("pysock resume unix:upper.sock"))
@click.argument("address", metavar="ADDR", callback=check_address)
@authkey_option
@timeout_option
def resume(address: str, authkey_file: Path | None, timeout: float) -> None:
    """End what pysock drain has begun: health checks of the server find it well again."""
    commanded(address, RESUME, authkey_file, timeout)
