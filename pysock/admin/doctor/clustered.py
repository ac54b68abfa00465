"""The check of the cluster that a server is a node of."""

from __future__ import annotations

from collections.abc import Iterator

from pysock.admin.doctor.facts import Facts, Finding


def cluster(facts: Facts) -> Iterator[Finding]:
    """Its bus, and the other nodes."""
    joined = facts.server._cluster
    if joined is None:
        return
    from pysock.cluster.examining import own_findings  # noqa: PLC0415  # most servers are no nodes

    for found in own_findings(joined):
        yield Finding(found.text, found.remedy)
