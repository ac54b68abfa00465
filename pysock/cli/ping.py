"""``pysock ping``: how long the server takes to answer."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Final

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
from pysock.cli.words import as_commands_say

#: The state of a server that wants clients, and the exit code where it is another one.
SERVING: Final = "serving"
NOT_READY: Final = 3


@click.command(epilog=example("pysock ping tcp://127.0.0.1:9000 --count 3"))
@click.argument("address", metavar="ADDR", callback=check_targets)
@click.option("--count", type=click.IntRange(min=1), default=4, show_envvar=True, help="How many pings.")
@click.option(
    "--interval", type=click.FloatRange(0, 86_400), default=0.2, show_envvar=True, help="Seconds between them."
)
@authkey_option
@timeout_option
@wait_option
@balance_option
def ping(
    address: str, count: int, interval: float, authkey_file: Path | None, timeout: float, wait: float, balance: Any
) -> int:
    """Measure how long the server takes to answer.

    The exit code is 3 where it answers and wants no new clients: it drains, or is lame (pysock drain).
    """
    times: list[float] = []
    state = ""
    key = read_authkey(authkey_file)
    with as_commands_say(address):
        client = pysock.connect(address, timeout=timeout, authkey=key, wait=wait or None, balance=balance)
    with client:
        for number in range(1, count + 1):
            if number > 1:
                time.sleep(interval)
            with as_commands_say(address):  # not what goes wrong with standard output
                pong = client.ping(timeout=timeout)
            times.append(pong * 1000)
            state = pong.state
            click.echo(f"pong {number} from {client.address}: {times[-1]:.3f} ms, {state}")
    click.echo(
        f"{count} of {count} answered, ms: {min(times):.3f} min, {statistics.median(times):.3f} median,"
        f" {max(times):.3f} max"
    )
    return 0 if state == SERVING else NOT_READY
