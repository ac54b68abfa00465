"""``pysock resume``: the end of ``pysock drain``."""

from __future__ import annotations

from pathlib import Path

import click

from pysock.cli.admin.asking import admin_options
from pysock.cli.admin.told import told
from pysock.cli.options import authkey_option, example


@click.command(epilog=example("pysock resume unix:upper.sock"))
@admin_options
@authkey_option
def resume(address: str, authkey_file: Path | None, timeout: float, json: bool) -> None:
    """End what pysock drain has begun: health checks of the server find it well again."""
    told(address, "resume", authkey_file, timeout, json)
