"""``pysock demo``: see a server and client processes at work."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from pysock.cli.options import example
from pysock.demo.run import default_text, run


@click.command(epilog=example("pysock demo --input README.md"))
@click.option(
    "--input",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    show_envvar=True,
    help="The text file.  [default: a module of the standard library]",
)
def demo(**options: Path | None) -> None:
    """See a server and four client processes count the words of a text file."""
    # As Ctrl-C does, so that nothing is left behind: neither client processes nor the socket file.
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        run(options["input"] or default_text(), Console())
    finally:
        signal.signal(signal.SIGTERM, before)
