"""``pysock doctor``: what could be better with a running server."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Final

import click

from pysock.cli.admin.asking import admin_of, admin_options, print_json
from pysock.cli.admin.shown import plain
from pysock.cli.options import example

_WIDTH: Final = 100


@click.command(epilog=example("pysock doctor unix:upper.sock"))
@admin_options
def doctor(address: str, timeout: float, json: bool) -> int:
    """Look at a running server and its system, and say in sentences what could be better, each with its remedy.

    The exit code is 1 if there is something.
    """
    with admin_of(address, timeout) as asker:
        answer = asker.ask("doctor")
    findings = answer["findings"]
    if json:
        print_json(answer)
    else:
        for finding in findings:
            click.echo(told(finding))
        what = f"{len(findings)} to look after" if findings else "all is well"
        click.echo(f"{len(answer['checked'])} checks: {what}")
    return 1 if findings else 0


def told(finding: Mapping[str, Any]) -> str:
    """Two sentences, and a line that is empty."""
    worker = f" (worker {finding['worker']})" if "worker" in finding else ""
    words = textwrap.TextWrapper(_WIDTH, break_long_words=False, break_on_hyphens=False)
    text = words.fill(f"{finding['check']}{worker}: {plain(finding['text'])}")
    words.initial_indent, words.subsequent_indent = "  -> ", "     "
    return f"{text}\n{words.fill(plain(finding['remedy']))}\n"
