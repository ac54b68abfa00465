"""``pysock drain``: a server tells health checks that new clients should go elsewhere, and serves on."""

from __future__ import annotations

from pathlib import Path

import click

from pysock.cli.admin.asking import admin_options
from pysock.cli.admin.told import told
from pysock.cli.options import authkey_option, example


@click.command(epilog=example("pysock drain unix:upper.sock"))
@admin_options
@authkey_option
def drain(address: str, authkey_file: Path | None, timeout: float, json: bool) -> None:
    """Have health checks of the server fail, so that no new clients are sent to it; all else goes on.

    ADDR is a Unix socket of a server that pysock serve runs, or that calls pysock.control(), or its admin socket; it
    obeys its own user and root. Until pysock resume.
    """
    told(address, "drain", authkey_file, timeout, json)
