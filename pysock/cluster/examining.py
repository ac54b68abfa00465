"""A bus and the cluster on it as an operator examines them: what there is, and what could be better, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.cluster.directory.messages import MAJOR
from pysock.cluster.directory.words import ClusterState
from pysock.cluster.sending import OVERHEAD

if TYPE_CHECKING:
    from typing import Final

    from pysock.cluster.bus.contract import BusReport
    from pysock.cluster.cluster import Cluster
    from pysock.cluster.directory.machine import Directory
    from pysock.cluster.view import ClusterNode

#: A longer round trip, in seconds, isn't that of a bus that is near.
SLOW: Final = 0.05
#: What a cluster is made for.
NODES: Final = 32
CLIENTS: Final = 200_000
#: What a payload may have at least, that most programs need, in bytes.
SMALL: Final = 64 * 1024


class Finding(NamedTuple):
    """Something that could be better."""

    check: str
    text: str
    remedy: str


#: What is looked at, in this order.
CHECKED: Final = ("bus", "permissions", "round trip", "payload", "nodes", "versions", "messages", "size")


def bus_findings(report: BusReport) -> Iterator[Finding]:
    """Of the bus alone."""
    for sentence in report.findings:
        text, _, remedy = sentence.partition(": ")
        check = "permissions" if "allow this user" in remedy else "bus"
        yield Finding(check, text, remedy or "see the page Cluster")
    yield from trip_findings(report.round_trip)
    if report.max_payload - OVERHEAD < SMALL:
        text = f"between nodes a payload may have {max(0, report.max_payload - OVERHEAD)} bytes at most"
        yield Finding("payload", text, "raise max_payload in the configuration of the bus; 1 MiB is usual")


def trip_findings(seconds: float) -> Iterator[Finding]:
    """Of a round trip alone."""
    if seconds > SLOW:
        text = f"a message to oneself takes {seconds * 1000:.0f} ms to come back"
        yield Finding("round trip", text, "run the bus nearer to the nodes, or look what keeps it busy")


def cluster_findings(name: str, nodes: Sequence[ClusterNode], directory: Directory) -> Iterator[Finding]:
    """Of the nodes that somebody has heard.

    :param name: the cluster's.
    """
    yield from _of_nodes(nodes)
    yield from _of_versions(nodes, directory.other_versions)
    if foreign := directory.foreign:
        text = f"{foreign} messages under the subjects of cluster {name!r} are none of its nodes'"
        yield Finding("messages", text, "give other programs no permission for these subjects")
    clients = sum(node.clients for node in nodes)
    if len(nodes) > NODES or clients > CLIENTS:
        text = f"{len(nodes)} nodes with {clients} clients are more than one cluster is made for"
        yield Finding("size", text, f"up to {NODES} nodes and {CLIENTS} clients: make several clusters of it")


def _of_nodes(nodes: Iterable[ClusterNode]) -> Iterator[Finding]:
    for name, count in Counter(node.name for node in nodes).items():
        if count > 1:
            text = f"{count} nodes are called {name!r}, so that addresses of their clients say too little"
            yield Finding("nodes", text, "give each another name: Cluster(node=), or pysock serve --node")
    for node in nodes:
        if node.suspect or node.stale:
            text = f"node {node.name!r} has been silent for 3 seconds"
            yield Finding("nodes", text, "look whether its process hangs, and whether it reaches the bus")
        elif not node.addresses:
            text = f"node {node.name!r} tells no address, so that no client finds it by the cluster"
            yield Finding("nodes", text, "let its server listen where clients reach it, or say advertise=")


def _of_versions(nodes: Iterable[ClusterNode], others: dict[int, int]) -> Iterator[Finding]:
    software = sorted({node.software for node in nodes})
    if len(software) > 1:
        text = f"the nodes are of several versions: {', '.join(software)}"
        yield Finding("versions", text, "that is well during a roll-out; else bring all to one version")
    for major, count in others.items():
        text = (
            f"{count} messages are of version {major} of the protocol, and not of {MAJOR}: their nodes aren't seen here"
        )
        yield Finding("versions", text, "bring all nodes, and this command, to one version of pysock")


def own_findings(cluster: Cluster) -> Iterator[Finding]:
    """As the node of a running server sees it."""
    status, member = cluster.status(), cluster._member
    if member is None:
        return
    if cluster.state is ClusterState.LOST:
        text = f"the bus {status['bus']} is down ({status['why']}): this node reaches its own clients alone"
        yield Finding("bus", text, "see pysock cluster check with its URL")
        return
    yield from trip_findings(member.bus.round_trip)
    if member.bus.dropped:
        text = f"the bus has dropped {member.bus.dropped} messages, for this process took them too slowly"
        yield Finding("bus", text, "give it more of a processor, or spread the clients over more nodes")
    yield from cluster_findings(cluster.name, cluster.nodes, member.directory)
