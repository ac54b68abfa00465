"""The checks, one a row: its name, what it looks at, and the function; and the service ``doctor``, which runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pysock.admin.asked import Asked
from pysock.admin.doctor import clustered, serving, system
from pysock.admin.doctor.facts import Facts, Finding
from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Final


class Check(NamedTuple):
    """One row."""

    name: str
    words: str  # what it looks at
    look: Callable[[Facts], Iterator[Finding]]


CHECKS: Final = (
    Check("state", "whether it serves and wants clients", serving.state),
    Check("loop", "whether the loop turns, and has time left", serving.loop),
    Check("output", "clients that don't read", serving.output),
    Check("engine", "native or pure", serving.engine),
    Check("descriptors", "their limit, against that of clients", system.descriptors),
    Check("backlog", "net.core.somaxconn", system.backlog),
    Check("datagrams", "net.unix.max_dgram_qlen", system.datagrams),
    Check("socket files", "the files, their directories and locks", system.socket_files),
    Check("certificates", "until when they are good", serving.certificates),
    Check("tls driver", "what speaks TLS, beside threads that compute", serving.tls_driver),
    Check("cluster", "the bus of its cluster, and the other nodes", clustered.cluster),
    Check("systemd unit", "Type, NotifyAccess", system.unit),
)


def doctor(facts: Callable[[], Facts], fields: Mapping[str, Any]) -> dict[str, Any]:
    """What could be better.

    :param facts: gathers them.
    """
    Asked("doctor", fields, ())
    found = facts()
    findings = []
    for check in CHECKS:
        try:
            told = list(check.look(found))
        except Exception as error:  # of one check: the others have something to say all the same
            told = [Finding(f"this couldn't be looked at: {type(error).__name__}: {error}", "report it as a bug")]
        findings += [{"check": check.name, "text": one.text, "remedy": one.remedy} for one in told]
    return {"findings": findings, "checked": {check.name: check.words for check in CHECKS}}
