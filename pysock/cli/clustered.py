"""``pysock serve --cluster``: the server as a node of a cluster.

This file owns the options of it, and what the library says of its parameters in their words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

import pysock
from pysock.cli.words import as_commands_say
from pysock.errors import ParameterError

#: The options, by what they are to :class:`pysock.Cluster`.
_OPTIONS: Final = {
    "url": "cluster",
    "name": "cluster_name",
    "node": "node",
    "unique": "unique",
    "required": "cluster_required",
    "ready_without_bus": "cluster_ready",
}
_HELP: Final = {
    "url": "Be a node of the cluster that this bus joins, local:NAME, nats://HOST:4222/NAME or redis://HOST:6379/NAME:"
    " its nodes know and reach each other's clients.",
    "name": "The cluster's, where the URL hasn't one.  [default: default]",
    "node": "This node's, another one for each; with --workers the process ID follows.  [default: made of host's name"
    " and process ID]",
    "unique": "Of several clients of one name, on whatever nodes, only the newest stays, or the oldest.",
    "required": "Don't start without the bus: wait so long for it.",
    "ready_without_bus": "Whether /readyz says 200 while the bus is down: always, or only with the bus."
    "  [default: always]",
}


def cluster_options(command: Any) -> Any:
    """Add ``--cluster`` and those that go with it."""
    shown: dict[str, dict[str, Any]] = {
        "url": {"metavar": "URL"},
        "name": {"metavar": "NAME"},
        "node": {"metavar": "NAME"},
        "unique": {"type": click.Choice(["newest", "oldest"])},
        "required": {"type": click.FloatRange(0, 86_400, min_open=True), "metavar": "SECONDS"},
        "ready_without_bus": {"type": click.Choice(["always", "with-bus"])},
    }
    for name, how in reversed(shown.items()):
        option = f"--{_OPTIONS[name].replace('_', '-')}"
        command = click.option(option, show_envvar=True, help=_HELP[name], **how)(command)
    return command


def take_cluster(options: dict[str, Any]) -> dict[str, Any]:
    """Take these out of all options; what is returned is for :func:`join`."""
    return {name: options.pop(option) for name, option in _OPTIONS.items()}


def join(server: pysock.Server, given: dict[str, Any]) -> None:
    """Make the server a node, if that is what was said."""
    said = {name: value for name, value in given.items() if value is not None}
    if "url" not in said:
        for name in said:
            raise click.UsageError(f"--{_OPTIONS[name].replace('_', '-')} goes with --cluster, which isn't given")
        return
    if "ready_without_bus" in said:
        said["ready_without_bus"] = said["ready_without_bus"] == "always"
    with as_options():
        server.join_cluster(pysock.Cluster(**said))


@contextmanager
def as_options(url: str = "--cluster") -> Iterator[None]:
    """Turn what the library says of a cluster's parameters into click's errors.

    :param url: what the bus is given by.
    """
    try:
        with as_commands_say():
            yield
    except click.UsageError as error:
        wrong = error.__cause__
        if not isinstance(wrong, ParameterError) or wrong.parameter not in _OPTIONS:
            raise
        option = url if wrong.parameter == "url" else f"--{_OPTIONS[wrong.parameter].replace('_', '-')}"
        advice = f": {wrong.advice}" if wrong.advice else ""
        raise click.UsageError(f"{option} {wrong.problem}{advice}") from wrong
