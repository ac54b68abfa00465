"""How many descriptors this process may have, RLIMIT_NOFILE (getrlimit(2)), and what that means for a server.

The usual soft limit is 1024, for the sake of programs that use select(); a server that said nothing would let in 960 of
the 10,000 clients that it promises. A library doesn't change the limit of its program: the command ``pysock serve``,
which is the program, does.
"""

from __future__ import annotations

import resource
from contextlib import suppress

from pysock._lean import TYPE_CHECKING
from pysock.errors import PysockError
from pysock.limits import DEFAULT_MAX_CLIENTS, RESERVED_DESCRIPTORS, Limits, default_max_clients
from pysock.logs import server_log as log

if TYPE_CHECKING:
    from typing import Final

#: With room for fewer a server would be of no use; who wants that says so, by ``Limits(max_clients=...)``.
_FEWEST: Final = 16


def check_descriptors(limits: Limits) -> None:
    """Log it where the default of ``max_clients`` is less than usual.

    :raises PysockError: there is room for fewer than 16 clients.
    """
    here = default_max_clients()
    if limits.max_clients != here or here >= DEFAULT_MAX_CLIENTS:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    able = "up to any number" if hard == resource.RLIM_INFINITY else f"up to {hard}"
    raise_it = f"raise the limit ({able}: ulimit -n, LimitNOFILE= of systemd, or resource.setrlimit())"
    if here < _FEWEST:
        raise PysockError(
            f"this process may have {soft} descriptors, {RESERVED_DESCRIPTORS} of which are kept for itself: too few"
            f" for {_FEWEST} clients; {raise_it}, or say how many clients are enough, with Limits(max_clients=...)"
        )
    log.warning(
        "at most %d clients, not %d: this process may have %d descriptors, %d of which are kept for itself; %s, or say"
        " Limits(max_clients=%d)",
        here,
        DEFAULT_MAX_CLIENTS,
        soft,
        RESERVED_DESCRIPTORS,
        raise_it,
        here,
    )


def raise_descriptor_limit() -> None:
    """For programs of ours: as many descriptors as the default of ``max_clients`` needs, if the system allows."""
    wanted = DEFAULT_MAX_CLIENTS + RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
