"""Descriptors that a service manager has opened for this process: sd_listen_fds(3).

This file owns ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES``: they are read once, and taken out of the
environment, so that no process that this one starts believes that they are for it. From then on none of the descriptors
is inherited. Until an address ``systemd:NAME`` is used nothing is touched: they may be for another part of the program.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from pysock.address import Address
from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Final

#: SD_LISTEN_FDS_START.
_FIRST: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
#: What systemd calls one that has no ``FileDescriptorName=``; and one out of its store, which is nothing to listen at.
_UNNAMED: Final = "unknown"
_STORED: Final = "stored"
#: How the names of those begin that a server has put into the store itself: see pysock/fdstore/store.py. No others: a
#: socket unit may be called pysock.socket, and by default its descriptors are, too.
KEPT: Final = "pysock.kept."
STATE: Final = "pysock.state."


class _Passed(NamedTuple):
    """What was passed to this process, or why nothing was."""

    pid: int
    descriptors: tuple[tuple[int, str], ...]  # number, name
    why_none: str


_taken: list[_Passed] = []


def addresses_of(address: Address) -> tuple[Address, ...]:
    """The passed descriptors that an address ``systemd:NAME`` means, as addresses ``fd://N``, in their order.

    :raises OSError: there is none of that name, or none at all; the message says which there are.
    """
    passed = _passed()
    there = [one for one in passed.descriptors if one[1] != _STORED and not one[1].startswith((KEPT, STATE))]
    fds = [fd for fd, name in there if name == (address.name or name)]
    if fds:
        return tuple(Address("fd", fd=fd) for fd in fds)
    if not there:
        advice = "start it by a .socket unit, or by systemd-socket-activate"
        raise FileNotFoundError(errno.ENOENT, f"{address}: {passed.why_none}; {advice}")
    names = ", ".join(dict.fromkeys(name for _, name in there))
    advice = "choose one, or set FileDescriptorName= in the .socket unit"
    raise FileNotFoundError(
        errno.ENOENT, f"{address}: the service manager has passed no socket of that name, but {names}: {advice}"
    )


def stored() -> list[tuple[int, str]]:
    """What a server of this service has put into the store, with its names; from now on the caller's.

    :raises OSError: what is said of the descriptors can't be right.
    """
    passed = _passed()
    found = [one for one in passed.descriptors if one[1].startswith((KEPT, STATE))]
    _taken[:] = [passed._replace(descriptors=tuple(one for one in passed.descriptors if one not in found))]
    return found


def _passed() -> _Passed:
    if not _taken or _taken[0].pid != os.getpid():
        _taken[:] = [_take()]
    return _taken[0]


def _take() -> _Passed:
    pid = os.getpid()
    meant, count, names = (os.environ.get(name) for name in _VARIABLES)
    if meant is None or count is None:
        return _Passed(pid, (), "no socket was passed to this process (LISTEN_FDS isn't set)")
    if meant != str(pid):
        return _Passed(pid, (), f"LISTEN_FDS is for the process {meant} (LISTEN_PID), and this is {pid}")
    if not (count.isascii() and count.isdigit()):
        raise OSError(errno.EINVAL, f"LISTEN_FDS must be a number, not {count!r}")
    fds = range(_FIRST, _FIRST + int(count))
    called = names.split(":") if names else [_UNNAMED] * len(fds)
    if len(called) != len(fds):
        raise OSError(errno.EINVAL, f"LISTEN_FDNAMES has {len(called)} names, and LISTEN_FDS says {len(fds)}")
    for name in _VARIABLES:
        os.environ.pop(name, None)
    for fd in fds:
        with suppress(OSError):  # it isn't there: whoever uses it is told so
            os.set_inheritable(fd, False)
    return _Passed(pid, tuple(zip(fds, called, strict=True)), "no socket was passed to this process (LISTEN_FDS is 0)")
