"""How a cluster is, for who looks after a server: in ``/statusz``, for the doctor, and for ``/readyz``."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory.words import ClusterState

if TYPE_CHECKING:
    from pysock.cluster.bus.contract import Bus
    from pysock.cluster.cluster import Cluster
    from pysock.cluster.member import Member


def status_of(cluster: Cluster, bus: Bus, member: Member | None) -> dict[str, object]:
    """See :meth:`pysock.Cluster.status`."""
    told: dict[str, object] = {"name": cluster.name, "node": cluster.node, "state": str(cluster.state)}
    told |= {"bus": bus.where, "round_trip": bus.round_trip, "dropped": bus.dropped}
    if cluster.state is ClusterState.LOST:
        told["why"] = "the server doesn't run" if member is None else bus.why
    if member is not None:
        told |= {"nodes": len(member.view.nodes()), "clients": member.view.count()}
        told["foreign"] = member.directory.foreign + sum(member.directory.other_versions.values())
    return told


def why_not_ready(cluster: Cluster, bus: Bus) -> str:
    """In a sentence; empty: it is."""
    return f"the cluster's bus {bus.where} is down: {bus.why}" if cluster.state is ClusterState.LOST else ""
