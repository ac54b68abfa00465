"""Putting a server under load with a client in Python, for wire formats that the generator in C doesn't speak."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.clients import Client


class WrongReply(Exception):
    """The server isn't an echo server of this kind."""


def connector(name: str) -> Callable[[str], Client]:
    """Return the function ``module:function`` of ``bench.clients``."""
    module, _, function = name.partition(":")
    found: Callable[[str], Client] = getattr(importlib.import_module(f"bench.clients.{module}"), function or "connect")
    return found


def run(connect: Callable[[str], Client], address: str, *, load: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Do it for so long; return what the load generator would, as far as a Python client knows it."""
    payloads = [b"x" * (load["size"] - 1) + b"z"] * load["in_flight"]
    cpu, started = time.process_time(), time.perf_counter()
    latencies, each = (
        _churn(connect, address, payloads, seconds) if load["churn"] else _talk(connect, address, payloads, seconds)
    )
    elapsed = time.perf_counter() - started
    count = len(latencies) * each
    return {
        "seconds": elapsed,
        "messages": count,
        "messages_per_second": count / elapsed,
        "bytes_per_second": count / elapsed * load["size"],
        "connections_per_second": count / elapsed if load["churn"] else 0.0,
        "errors": 0,
        "latency_us": _latency(latencies),
        "client_core": (time.process_time() - cpu) / elapsed,
    }


def _talk(
    connect: Callable[[str], Client], address: str, payloads: Sequence[bytes], seconds: float
) -> tuple[list[int], int]:
    """The latencies, and how many requests each is of."""
    client = connect(address)
    try:
        check(client, payloads)
        if hasattr(client, "converse"):
            return client.converse(payloads, seconds), 1
        return _ask(client, payloads, seconds), len(payloads)
    finally:
        client.close()


def _ask(client: Client, payloads: Sequence[bytes], seconds: float) -> list[int]:
    """Latencies in ns, of single requests or of whole batches."""
    if len(payloads) == 1:
        ask, what = client.request, payloads[0]
    else:
        ask, what = client.request_many, payloads  # type: ignore[assignment]
    clock, latencies = time.perf_counter_ns, []
    now = clock()
    end = now + int(seconds * 1e9)
    while now < end:
        ask(what)
        before, now = now, clock()
        latencies.append(now - before)
    return latencies


def _churn(
    connect: Callable[[str], Client], address: str, payloads: Sequence[bytes], seconds: float
) -> tuple[list[int], int]:
    clock, latencies = time.perf_counter_ns, []
    end = clock() + int(seconds * 1e9)
    while (started := clock()) < end:
        client = connect(address)
        client.request(payloads[0])
        client.close()
        latencies.append(clock() - started)
    return latencies, 1


def check(client: Client, payloads: Sequence[bytes]) -> None:
    """Once; every reply would be the client's time, not the server's."""
    _compare([client.request(payloads[0])], payloads[0])
    _compare(client.request_many(payloads), payloads[0])


def _compare(replies: Sequence[Any], payload: bytes) -> None:
    if any(bytes(memoryview(reply)) != payload for reply in replies):
        raise WrongReply("the reply isn't the request")


def _latency(latencies: list[int]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=1000, method="inclusive") if len(latencies) > 1 else latencies * 999
    names = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
    middle = {name: cuts[at - 1] / 1e3 for name, at in names.items()}
    return {
        "min": min(latencies) / 1e3,
        "mean": statistics.fmean(latencies) / 1e3,
        **middle,
        "max": max(latencies) / 1e3,
    }
