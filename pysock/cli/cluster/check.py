"""``pysock cluster check``: the bus of a cluster, and the cluster on it, with what could be better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pysock.cli.admin.asking import print_json
from pysock.cli.admin.doctor import told
from pysock.cli.admin.shown import plain, short
from pysock.cli.cluster.looking import cluster_arguments, onlooker
from pysock.cli.cluster.nodes import counted
from pysock.cli.options import example

if TYPE_CHECKING:
    from pysock.cluster.bus.contract import BusReport
    from pysock.cluster.observing import Onlooker


@click.command(epilog=example("pysock cluster check nats://127.0.0.1:4222/prod"))
@cluster_arguments
def check(url: str, cluster_name: str | None, timeout: float, json: bool) -> int:
    """Look at the bus of a cluster as a node would use it, and say what could be better, each with its remedy.

    It connects, says something to itself under each kind of subject, measures the round trip, and looks who is there.
    The exit code is 1 if there is something, or the bus can't be used.
    """
    from pysock.cluster.examining import CHECKED, bus_findings, cluster_findings  # noqa: PLC0415  # as looking.py

    with onlooker(url, cluster_name, timeout) as looker:
        report = looker.examined(timeout)
        findings = [*bus_findings(report), *cluster_findings(looker.name, looker.nodes, looker.directory)]
        seen = _seen(looker, report)
    if json:
        print_json({**seen, "checked": CHECKED, "findings": [finding._asdict() for finding in findings]})
        return 1 if findings else 0
    for line in _lines(seen):
        click.echo(line)
    for finding in findings:
        click.echo(f"\n{told(finding._asdict())}", nl=False)
    click.echo(f"{len(CHECKED)} checks: {f'{len(findings)} to look after' if findings else 'all is well'}")
    return 1 if findings else 0


def _seen(looker: Onlooker, report: BusReport) -> dict[str, Any]:
    nodes = looker.nodes
    return {
        "bus": looker.bus.where,
        "kind": report.kind,
        "server": report.server,
        "round_trip": report.round_trip,
        "max_payload": looker.most,
        "cluster": looker.name,
        "nodes": len(nodes),
        "clients": sum(node.clients for node in nodes),
        "software": sorted({node.software for node in nodes}),
    }


def _lines(seen: dict[str, Any]) -> list[str]:
    software = f", {', '.join(map(plain, seen['software']))}" if seen["software"] else ""
    there = f"{counted(seen['nodes'], 'node')} with {counted(seen['clients'], 'client')}{software}"
    return [
        f"bus      {seen['bus']}: {plain(seen['server'])}, round trip {short(seen['round_trip'])}",
        f"payload  up to {seen['max_payload']} bytes between nodes",
        f"cluster  {seen['cluster']}: {there if seen['nodes'] else 'no node is there yet'}",
    ]
