"""What the system says no to, in words that name the address and say what to do.

The rooms below explain what they know better. This file owns the rest: no bare ``[Errno 16]`` reaches a user, nor a
path of ours in ``/proc``. Each number of errno(3) that may come has a row.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

    from pysock.address import Address

_ELSEWHERE: Final = "choose a path on another file system, such as /run"

_ADVICE: Final = {
    errno.EACCES: "run it as a user who may, or choose another address",
    errno.EPERM: "run it as a user who may, or choose a path on another file system, such as /run",
    errno.EROFS: f"the file system is read-only; {_ELSEWHERE}",
    errno.ENOSPC: "free some space there, or choose another path",
    errno.EDQUOT: "this user's quota is used up; free some space, or choose another path",
    errno.EIO: f"the device fails; look at the kernel's log, and {_ELSEWHERE}",
    errno.EBUSY: "something else uses that file, as a mount point perhaps; unmount it (umount), or choose another path",
    errno.ESTALE: f"the network file system has lost it; try again, or {_ELSEWHERE}",
    errno.ELOOP: "the path has too many symbolic links in it; choose another one",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOTDIR: "a part of the path isn't a directory; choose another one",
    errno.EISDIR: "a directory is at that path; choose another one",
    errno.ENOENT: "a part of the path isn't there (any more); create it, or choose another one",
    errno.ENOTSUP: f"the file system can't do that; {_ELSEWHERE}",
    errno.ENOSYS: f"the system can't do that; {_ELSEWHERE}",
    errno.EINVAL: f"the system can't do that there; {_ELSEWHERE}",
    errno.ENOLCK: f"there are no locks there; {_ELSEWHERE}",
    errno.EMFILE: "this process has no descriptors left: close some, or raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has no descriptors left: close some, or raise fs.file-max (proc_sys_fs(5))",
    errno.ENOMEM: "this machine has no memory left for it; try again later",
    errno.ENOBUFS: "this machine has no memory left for it; try again later",
    errno.EAFNOSUPPORT: "this machine doesn't have that kind of address; choose another one",
    errno.EADDRNOTAVAIL: "this machine has no interface with that address; choose another one",
    errno.ENETUNREACH: "no network leads there; look at the address and at this machine's routes",
    errno.EHOSTUNREACH: "that machine can't be reached; look at the address, and whether it is switched on",
    errno.ETIMEDOUT: "that machine doesn't answer; look at the address, and at firewalls between",
    errno.ECONNRESET: "the other end has closed the connection; is it the right server?",
}

#: Over TCP no path is in the way.
_TCP_ADVICE: Final = {
    errno.EPERM: "the system or its firewall forbids it; run it as a user who may, or choose another address",
    errno.EINVAL: "an address of one link needs its interface, as in [fe80::1%eth0]:9000; else choose another one",
}


def is_bare(error: OSError) -> bool:
    """Whether it has no more words than the system's."""
    return bool(error.errno) and error.strerror == os.strerror(error.errno or 0)


def explained_fault(error: OSError, address: Address | str, step: str) -> OSError:
    """The same error with words; itself, if it has some.

    :param address: also a text, where the step was for several.
    :param step: what was tried, for the message: ``"bind()"``.
    """
    if not is_bare(error):
        return error
    number = error.errno or 0
    advice = _ADVICE.get(number, "choose another address, or look at the manual page of that call")
    if str(address).startswith("tcp:"):
        advice = _TCP_ADVICE.get(number, advice)
    # OSError chooses its subclass by the number: FileNotFoundError, PermissionError ...
    return OSError(number, f"{address}: {step} failed ({os.strerror(number)}): {advice}")


@contextmanager
def explains(address: Address | str, step: str) -> Iterator[None]:
    """Around a step with an address: what the system says no to in it is raised with words."""
    try:
        yield
    except OSError as error:
        if not is_bare(error):
            raise
        raise explained_fault(error, address, step) from error
