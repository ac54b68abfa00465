"""How many descriptors this process may have, RLIMIT_NOFILE (getrlimit(2)), and what that means for a server.

The usual soft limit is 1024, for the sake of programs that use select(); a server that said nothing would let in 960 of
the 10,000 clients that it promises. A library doesn't change the limit of its program: the command ``pysock serve``,
which is the program, does.
"""

from __future__ import annotations

import resource
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.errors import PysockError
from pysock.limits import DEFAULT_MAX_CLIENTS, RESERVED_DESCRIPTORS, CutDefault, Limits

if TYPE_CHECKING:
    from typing import Final

#: With room for fewer a server would be of no use; who wants that says so, by ``Limits(max_clients=...)``.
_FEWEST: Final = 16


def check_descriptors(limits: Limits) -> None:
    """Log it where the default of ``max_clients`` was cut, or where somebody said more than there can be.

    :raises PysockError: it was cut to fewer than 16.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = wanted = limits.max_clients
    if isinstance(room, CutDefault):
        wanted = DEFAULT_MAX_CLIENTS
    elif soft != resource.RLIM_INFINITY and room >= soft:
        room = max(1, soft - RESERVED_DESCRIPTORS)
    else:
        return
    able = "up to any number" if hard == resource.RLIM_INFINITY else f"up to {hard}"
    raise_it = f"raise the limit ({able}: ulimit -n, LimitNOFILE= of systemd, or resource.setrlimit())"
    if isinstance(room, CutDefault) and room < _FEWEST:
        raise PysockError(
            f"this process may have {soft} descriptors, {RESERVED_DESCRIPTORS} of which are kept for itself: too few"
            f" for {_FEWEST} clients; {raise_it}, or say how many clients are enough, with Limits(max_clients=...)"
        )
    log.warning(
        "at most %d clients, not %d: this process may have %d descriptors, %d of which are kept for itself; %s, or say"
        " Limits(max_clients=%d)",
        room,
        wanted,
        soft,
        RESERVED_DESCRIPTORS,
        raise_it,
        room,
    )


def raise_descriptor_limit(clients: int = DEFAULT_MAX_CLIENTS) -> None:
    """For programs of ours: as many descriptors as so many clients need, if the system allows."""
    wanted = clients + RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
