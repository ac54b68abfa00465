"""The numbers that stand for nobody in particular: users and groups that aren't mapped into this user namespace.

In a user namespace that maps only some users (a container's, mostly) the kernel shows all others under one number, the
overflow uid, mostly 65534; groups likewise (user_namespaces(7), proc_sys_kernel(5)). So such a peer may be anybody, and
no rule may take it for the user who happens to have that number inside.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: A map of all numbers but the last, which means "nobody" to the kernel.
_ALL: Final = 2**32 - 1
_DEFAULT: Final = 65534


def unmapped_users() -> frozenset[int]:
    """Return the number that users of outside are shown by, where there may be such users."""
    return _overflow("uid")


def unmapped_groups() -> frozenset[int]:
    """Return the same of groups."""
    return _overflow("gid")


def _overflow(kind: str) -> frozenset[int]:
    try:
        mapped = sum(int(line.split()[2]) for line in _read(f"/proc/self/{kind}_map").splitlines())
    except (OSError, ValueError, IndexError):
        return frozenset()  # no Linux, or one without user namespaces
    if mapped >= _ALL:
        return frozenset()
    try:
        return frozenset((int(_read(f"/proc/sys/kernel/overflow{kind}")),))
    except (OSError, ValueError):
        return frozenset((_DEFAULT,))


def _read(path: str) -> bytes:
    # As bytes, since a text needs the module of its encoding, which a process that has become somebody else, or has
    # another root, may not be able to import any more.
    with open(path, "rb") as file:
        return file.read()
