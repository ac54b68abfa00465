"""``pysock cluster watch``: who comes to a cluster and who goes, live."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from pysock.cli.admin.asking import print_json
from pysock.cli.admin.shown import plain
from pysock.cli.cluster.looking import client_as_json, cluster_arguments, node_as_json, onlooker
from pysock.cli.cluster.nodes import counted
from pysock.cli.options import example
from pysock.cluster.directory.events import NodeEvent, StateEvent
from pysock.cluster.directory.words import ClusterState, NodeChange
from pysock.cluster.view import other_row

if TYPE_CHECKING:
    from pysock.cluster.directory.events import Event
    from pysock.cluster.directory.node import Node
    from pysock.cluster.observing import Onlooker

#: Between two looks, in seconds.
_EVERY: Final = 0.1
#: With it all clients of a node have gone, which isn't told of each.
_ENDS: Final = (NodeChange.LEFT, NodeChange.GONE)


@click.command(epilog=example("pysock cluster watch local:shop --count 10"))
@cluster_arguments
@click.option("--nodes", is_flag=True, show_envvar=True, help="Tell of nodes alone.")
@click.option("--count", type=click.IntRange(1), metavar="N", show_envvar=True, help="End after so many lines.")
def watch(url: str, cluster_name: str | None, timeout: float, json: bool, nodes: bool, count: int | None) -> None:
    """Show the nodes of a cluster, then what comes and goes, until Ctrl-C. URL is that of its bus.

    Where a node has gone, so have its clients: that isn't told of each. With --json each line is an object.
    """
    happened: deque[Event] = deque()
    with onlooker(url, cluster_name, timeout, happened.append) as looker:
        happened.clear()
        for number, entry in enumerate(_entries(looker, happened, nodes), 1):
            if json:
                print_json(entry)
            else:
                click.echo(_line(entry))
            if number == count:
                return


def _entries(looker: Onlooker, happened: deque[Event], nodes: bool) -> Iterator[dict[str, Any]]:
    for node in looker.nodes:
        yield _entry("node", "there", node_as_json(node))
    rosters = _Rosters(looker)
    while True:
        while happened:
            yield from _of_event(happened.popleft(), looker, rosters)
        for entry in rosters.changes():
            if not nodes:
                yield entry
        threading.Event().wait(_EVERY)


def _entry(what: str, change: str, told: dict[str, Any]) -> dict[str, Any]:
    return {"at": round(time.time(), 3), "event": what, "change": change, **told}


def _of_event(event: Event, looker: Onlooker, rosters: _Rosters) -> Iterator[dict[str, Any]]:
    if isinstance(event, NodeEvent):
        told = node_as_json(other_row(event.node))
        if event.change in _ENDS:
            told["clients"] = rosters.count(event.node.epoch)
        yield _entry("node", str(event.change), told)
    elif isinstance(event, StateEvent) and event.new is not ClusterState.SYNCING:
        yield _entry("bus", str(event.new), {"why": looker.bus.why if event.new is ClusterState.LOST else ""})


class _Rosters:
    """The clients of each node, as they were at the last look."""

    def __init__(self, looker: Onlooker) -> None:
        self._looker = looker
        self._known: dict[int, tuple[int, dict[int, bytes]]] = {}
        for _ in self.changes():
            pass

    def count(self, epoch: int) -> int:
        """How many a node had."""
        return len(self._known.get(epoch, (0, {}))[1])

    def changes(self) -> Iterator[dict[str, Any]]:
        """Who has come and gone since then."""
        nodes = self._looker.directory.nodes
        for epoch in [epoch for epoch in self._known if epoch not in nodes]:
            del self._known[epoch]
        for epoch, node in nodes.items():
            yield from self._of_node(epoch, node)

    def _of_node(self, epoch: int, node: Node) -> Iterator[dict[str, Any]]:
        hashed, old = self._known.get(epoch, (0, {}))
        if node.roster.hash == hashed and len(node.roster) == len(old):
            return
        now = hashed, new = node.roster.hash, dict(node.roster.rows)
        if self._looker.directory.nodes.get(epoch) is not node:
            return  # it has gone just now, with all of them
        self._known[epoch] = now
        for change, rows, others in (("left", old, new), ("joined", new, old)):
            for client_id, packed in rows.items():
                row = None if others.get(client_id) == packed else self._looker.row(packed)
                if row is not None:
                    yield _entry("client", change, client_as_json(row))


def _line(entry: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(entry["at"]))
    return f"{clock}  {_WORDS[entry['event']](entry)}"


def _of_node_in_words(entry: dict[str, Any]) -> str:
    clients = "" if entry["change"] == "joined" else f", {counted(entry['clients'], 'client')}"  # they follow
    drains = " (draining)" if entry["draining"] else ""
    return f"node {entry['name']} {entry['change']}{drains}{clients}, at {plain(entry['host'])}"


def _of_client_in_words(entry: dict[str, Any]) -> str:
    return f"client {plain(entry['name']) or '(without a name)'} {entry['change']}, {entry['address']}"


def _of_bus_in_words(entry: dict[str, Any]) -> str:
    return f"the bus is {entry['change']}" + (f": {entry['why']}" if entry["why"] else "")


_WORDS: Final = {"node": _of_node_in_words, "client": _of_client_in_words, "bus": _of_bus_in_words}
