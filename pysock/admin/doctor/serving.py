"""Checks of how a server serves: its engine, its loop, its handlers, its clients, its certificates."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from pysock.admin.doctor.facts import Facts, Finding
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.choice import choose
from pysock.engine.said import REINSTALL
from pysock.states import ServerState

if TYPE_CHECKING:
    from typing import Any, Final

#: Of one processor: more leaves too little for what comes in bursts.
_BUSY: Final = 0.8
#: Of a thread beside the loop: it computes.
_COMPUTES: Final = 0.3
#: The loop turns in milliseconds, unless something holds it up.
_STUCK: Final = 0.5
_DAY: Final = 86_400.0
_SOON: Final = 14 * _DAY
#: How many clients are named.
_NAMED: Final = 3


def engine(facts: Facts) -> Iterator[Finding]:
    """Pure, though it could be native."""
    if facts.server.backend != "pure" or sys.platform != "linux" or sys.implementation.name != "cpython":
        return
    try:
        choose("native")
    except ImportError:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            return
        yield Finding(
            f"the engine in Python serves, several times slower than the one in C, though there is a compiler"
            f" ({compiler}) that could build that",
            REINSTALL,
        )
        return
    yield Finding(
        "the engine in Python serves, several times slower than the one in C, which is there",
        "leave out backend='pure', or PYSOCK_BACKEND=pure, unless it is meant so",
    )


def loop(facts: Facts) -> Iterator[Finding]:
    """It hangs, or has next to no time left."""
    if facts.stuck_for >= _STUCK:
        yield Finding(
            f"the loop hasn't turned for {facts.stuck_for:.1f} s: a handler or a hook runs, and nobody else is served",
            "the log says whose it is when it returns; give it workers (threads=, processes=), or let it await; py-spy"
            " dump --pid shows where it is now",
        )
    share = facts.busy.loop
    if share is not None and share > _BUSY:
        yield Finding(
            f"the loop is busy for {share:.0%} of the time: requests wait for each other, and a burst makes all late",
            "run workers (pysock serve --workers), give services that compute processes=, or spread the clients",
        )


def output(facts: Facts) -> Iterator[Finding]:
    """Clients that don't read what they asked for."""
    limits = facts.server.limits
    waiting = [row for row in facts.server.clients.snapshot() if row.output_waiting >= limits.output_pause]
    if not waiting:
        return
    waiting.sort(key=lambda row: -row.output_waiting)
    named = ", ".join(f"{shown(row.id)} {row.name!r} ({row.output_waiting} bytes)" for row in waiting[:_NAMED])
    yield Finding(
        f"{len(waiting)} clients don't take what is sent to them, and aren't read any more: {named}",
        "see what they do; pysock kill ends them, and Limits(output_timeout=) ends those that take nothing for so long",
    )


def certificates(facts: Facts) -> Iterator[Finding]:
    """Those that end soon, as their files are now."""
    for address, cert in _certificates(facts):
        from pysock.tls.validity import times_of  # noqa: PLC0415  # it brings the module ssl

        try:
            with open(cert, encoding="ascii", errors="replace") as file:
                times = times_of(file.read())
        except OSError as error:
            yield Finding(
                f"the certificate of {address}, {cert}, can't be read ({error.strerror}): the one in memory is used on,"
                " and the next start fails",
                "put it back, or correct its permissions",
            )
            continue
        if times is None or times[1] - facts.now >= _SOON:
            continue
        left = times[1] - facts.now
        when = f"ends in {left / _DAY:.0f} days" if left > 0 else f"has ended {-left / _DAY:.0f} days ago"
        yield Finding(
            f"the certificate of {address}, {cert}, {when}: then no client connects",
            "renew it, and send SIGHUP to pysock serve, or call server.reload_tls()",
        )


def _certificates(facts: Facts) -> Iterator[tuple[str, str]]:
    listening = facts.server._running.listening
    for address, spoken in zip(facts.server.addresses, listening.tls, strict=True):
        cert = getattr(spoken.wanted, "cert", None) if spoken is not None else None  # a context has no files
        if cert is not None:
            yield address.bare(), cert


def tls_driver(facts: Facts) -> Iterator[Finding]:
    """Python's module ssl in the C loop, beside threads that compute."""
    listening = facts.server._running.listening
    spoken = [one.wanted for one in listening.tls if one is not None]
    if not spoken or facts.server.backend != "native" or facts.busy.others < _COMPUTES:
        return
    if any(_speaks_by_ssl(one, listening.tls_driver) for one in spoken):
        yield Finding(
            "TLS is spoken by Python's module ssl, and other threads of the program compute: each piece of it waits for"
            " the GIL, 5 ms at a time",
            "install OpenSSL 3 (libssl.so.3) and use a pysock.TLS, without tls_driver='ssl'; or have the computing done"
            " in processes; sys.setswitchinterval(0.0005) makes the waits shorter",
        )


def _speaks_by_ssl(wanted: Any, driver: str) -> bool:
    return driver == "ssl" or hasattr(wanted, "wrap_bio") or choose().tls_drivers()[0] == "ssl"


def state(facts: Facts) -> Iterator[Finding]:
    """It doesn't want new clients."""
    server = facts.server
    if server.state is ServerState.SERVING and server.is_lame:
        yield Finding(
            "the server is lame: health checks fail, and no new clients are sent to it",
            "pysock resume, if nobody has a reason for it",
        )
    elif server.state is not ServerState.SERVING:
        yield Finding(f"the server isn't serving: it is {server.state.name.lower()}", "see its log")
    most = server.limits.max_clients
    if server.state is ServerState.SERVING and len(server.clients) > _BUSY * most:
        yield Finding(
            f"{len(server.clients)} of at most {most} clients are connected: soon others are turned away",
            "raise Limits(max_clients=) and the limit of descriptors, or run another server",
        )
