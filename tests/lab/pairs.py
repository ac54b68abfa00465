"""Requests and replies under load: none is lost, doubled, swapped or altered."""

from __future__ import annotations

import time

from lab.experiment import Scale, check, per_engine
from lab.load import talk
from lab.processes import Child
from lab.served import serving

CLIENTS = 64


def pairs(scale: Scale, engine: str, transport: str) -> str:
    """64 clients, requests of 12 to 200,000 bytes cut anywhere, with pauses, to a plain and to a batch service."""
    total = scale.of(400_000, 20_000_000)
    with serving(engine, transport) as server:
        began = time.monotonic()
        with Child(talk, server.address, CLIENTS, total, (scale.seed, "pairs")) as load:
            counts = load.result(scale.of(300, 7200))
        seconds = time.monotonic() - began
        stats = server.wait_empty()
    bad = {name: count for name, count in counts.items() if name != "pairs"} | {"at the server": stats["altered"]}
    check(not any(bad.values()), f"of {total:,}: {bad}")
    check(counts["pairs"] == stats["requests"] == stats["calls"] == total, f"{counts}, {stats}, not {total}")
    check(not stats["errors"] and not stats["violations"], f"the server counted {stats}")
    return f"{total:,} pairs, {CLIENTS} clients: 0 lost, doubled, swapped, altered; {total / seconds:,.0f} a second"


EXPERIMENTS = per_engine("pairs", "pairs of request and reply with id and checksum under load", pairs)
