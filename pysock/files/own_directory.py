"""Where a socket file is that has no path of its own: in a directory of the user's, the same for server and client.

This file owns the choice of that directory (XDG Base Directory Specification), and what people are told of it where the
two sides have chosen differently. Whether the directory can be trusted is looked at in ``place.py``.
"""

from __future__ import annotations

import os

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: The name of the file, where nobody gives another.
_DEFAULT_NAME: Final = "server"

#: Where the user's own directory is, for want of ``XDG_RUNTIME_DIR``. Not ``TMPDIR``: server and client must agree.
_TEMPORARY: Final = "/tmp"  # noqa: S108  # the directory in it is checked before it is used, in place.py


def own_socket_file(name: str | None) -> str:
    """Return the path of the socket file with this name."""
    return os.path.join(_own_directory(), _file(name))


def _own_directory() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime, "pysock") if _is_own(runtime) else f"{_TEMPORARY}/pysock-{os.geteuid()}"


def _is_own(runtime: str) -> bool:
    """XDG Base Directory Specification: a relative path there is to be ignored, and the directory is the user's own. It
    is another's where the variable was inherited: with ``sudo -E``, say.
    """
    try:
        return os.path.isabs(runtime) and os.stat(runtime).st_uid == os.geteuid()
    except OSError:
        return True  # making a directory there will say what is wrong


def choices(name: str | None) -> str:
    """Where each side would look for the socket file with this name, for an error message."""
    file = _file(name)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    value = f"here XDG_RUNTIME_DIR is {runtime!r}" if runtime else "here XDG_RUNTIME_DIR isn't set"
    if runtime and not _is_own(runtime):
        own = os.path.isabs(runtime)
        value += (
            ", which isn't this user's own directory" if own else ", which is ignored, as it isn't an absolute path"
        )
    return (
        f"without a path it is {own_socket_file(name)} ({value}): a process of another user, or with another value of"
        f" that variable, takes $XDG_RUNTIME_DIR/pysock/{file} or {_TEMPORARY}/pysock-UID/{file}; give both sides a"
        " path, for example unix:/run/demo.sock"
    )


def _file(name: str | None) -> str:
    return f"{name or _DEFAULT_NAME}.sock"
