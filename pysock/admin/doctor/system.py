"""Checks of what the system allows: descriptors, queues, socket files, and the systemd unit."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress

from pysock.admin.doctor.facts import Facts, Finding
from pysock.base.lean import TYPE_CHECKING
from pysock.limits import DEFAULT_MAX_CLIENTS, RESERVED_DESCRIPTORS, CutDefault

if TYPE_CHECKING:
    from typing import Final

#: systemd makes it 512 on the machines that it boots; the kernel's own is 10.
_FEW_DATAGRAMS: Final = 64
#: systemctl answers at once, or not at all.
_PATIENCE: Final = 2.0


def descriptors(facts: Facts) -> Iterator[Finding]:
    """RLIMIT_NOFILE against ``max_clients``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = facts.server.limits.max_clients
    wanted = DEFAULT_MAX_CLIENTS if isinstance(most, CutDefault) else most
    if soft == resource.RLIM_INFINITY or soft >= wanted + RESERVED_DESCRIPTORS:
        return
    able = "" if hard == resource.RLIM_INFINITY or hard >= wanted else f" (the hard limit is {hard}, too)"
    yield Finding(
        f"the process may have {soft} descriptors{able}, {RESERVED_DESCRIPTORS} of which it keeps for itself: so"
        f" {max(0, soft - RESERVED_DESCRIPTORS)} clients at once have one, and not {wanted}",
        f"raise it to {wanted + RESERVED_DESCRIPTORS}: LimitNOFILE= of the systemd unit, or ulimit -n; or say"
        " Limits(max_clients=) with fewer",
    )


def backlog(facts: Facts) -> Iterator[Finding]:
    """``net.core.somaxconn`` against the backlog that is asked for."""
    most = facts.number("sys/net/core/somaxconn")
    server = facts.server
    wanted = max((address.backlog or server.limits.backlog for address in server.addresses), default=0)
    if most is not None and wanted > most:
        yield Finding(
            f"a backlog of {wanted} is asked for, and the system keeps {most} connections at most until they are"
            " accepted: of a crowd that comes at once some wait in vain, or are refused",
            f"sysctl -w net.core.somaxconn={wanted}; or say Limits(backlog={most}), if that is enough",
        )


def datagrams(facts: Facts) -> Iterator[Finding]:
    """``net.unix.max_dgram_qlen``, where somebody is told by datagrams."""
    most = facts.number("sys/net/unix/max_dgram_qlen")
    if "INVOCATION_ID" not in facts.environ and "NOTIFY_SOCKET" not in facts.environ:
        return
    if most is not None and most < _FEW_DATAGRAMS:
        yield Finding(
            f"a queue of datagrams holds {most} (net.unix.max_dgram_qlen): what systemd is told, or a supervisor, may"
            " have to be told again",
            "sysctl -w net.unix.max_dgram_qlen=512, as systemd itself does where it boots the machine",
        )


def socket_files(facts: Facts) -> Iterator[Finding]:
    """The socket files, whose they are, and what others may do where they lie."""
    for address in facts.server.addresses:
        if address.transport == "unix":
            yield from _socket_file(address.socket_file)


def _socket_file(path: str) -> Iterator[Finding]:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        found = os.stat(path)
    except OSError as error:
        yield Finding(
            f"{path} can't be found ({error.strerror}): nobody can connect there any more; who is connected goes on",
            "somebody has removed it: restart the server, and see to it that nothing clears that directory (systemd has"
            " RuntimeDirectory=, and tmpfiles.d for exceptions)",
        )
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding(f"{path} is no socket any more: something else has taken its place", "restart the server")
    where = os.stat(folder)
    if where.st_mode & stat.S_IWOTH and not where.st_mode & stat.S_ISVTX:
        yield Finding(
            f"everybody may write in {folder}: any user can put a socket of his own in the place of {path}",
            f"chmod o-w {folder}, or listen in a directory of the service's own, as RuntimeDirectory= of systemd makes",
        )
    with suppress(OSError):
        lock = os.stat(f"{path}.lock")
        if lock.st_uid not in {0, os.geteuid()}:
            yield Finding(
                f"{path}.lock belongs to user {lock.st_uid}, who can hold it for ever: then no server starts here",
                f"stop the server, remove {path}.lock, and keep others from writing in {folder}",
            )


def unit(facts: Facts) -> Iterator[Finding]:
    """How the unit is set up, where systemd has started the process."""
    name = _unit_of(facts)
    if name is None:
        return
    shown = _systemctl(name)
    if not shown:
        return
    kind = shown.get("Type", "")
    if not kind.startswith("notify"):
        yield Finding(
            f"the unit {name} has Type={kind or 'simple'}: systemd takes it for started before anybody can connect, and"
            " what needs it may start too early",
            "write Type=notify into its [Service], and have the program tell systemd (pysock serve does)",
        )
    elif shown.get("NotifyAccess") == "none":
        yield Finding(
            f"the unit {name} has NotifyAccess=none: what the server says to systemd isn't heard",
            "write NotifyAccess=main into its [Service]",
        )


def _unit_of(facts: Facts) -> str | None:
    """The name of the service whose control group this is; ``None``: systemd hasn't started it."""
    if "INVOCATION_ID" not in facts.environ:
        return None
    for line in facts.text("self/cgroup").splitlines():
        for part in reversed(line.rpartition(":")[2].split("/")):
            if part.endswith(".service"):
                return part
    return None


def _systemctl(name: str) -> dict[str, str]:
    command = ["systemctl", "show", name, "-p", "Type,NotifyAccess"]
    try:
        done = subprocess.run(  # noqa: S603  # the name is of our own control group
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
