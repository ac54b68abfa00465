"""Which clients are meant: by fields that the engines know, so that no Python runs for each client."""

from __future__ import annotations

from collections.abc import Mapping

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.directory.groups import checked_name
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

    from pysock.base import kinds


class Selection(NamedTuple):
    """The fields; ``None``: it doesn't matter."""

    uid: int | None = None  # of the process at the other end of a Unix socket
    name: str | None = None  # a pattern for the client's name
    group: str | None = None  # that it is in


EVERYBODY: Final = Selection()

_FIELDS: Final = ", ".join(Selection._fields)
_UIDS: Final = 2**32


def selection_of(where: kinds.Where | None) -> Selection:
    """Return what ``where=`` says.

    :raises TypeError: it isn't fields, or one of them is of another type.
    :raises ValueError: there is no such field, or no such value.
    """
    if where is None:
        return EVERYBODY
    if callable(where):
        raise TypeError(
            "where= takes fields, for example where={'name': 'sensor-*'}, and not a function, for it would run for"
            " each client: go through server.clients.values() yourself, and send() to those that are meant"
        )
    if not isinstance(where, Mapping):
        raise TypeError(f"where= takes fields, for example where={{'name': 'sensor-*'}}, not {where!r}")
    for field in where:
        if field not in Selection._fields:
            raise ParameterError("where", f"has a field {field!r}: a client is told by {_FIELDS}", name="where=")
    return checked_selection(Selection(**where))


def checked_selection(wanted: Selection) -> Selection:
    """Return it; raises what :func:`selection_of` does."""
    uid, name, group = wanted
    if uid is not None and (not isinstance(uid, int) or isinstance(uid, bool)):
        raise TypeError(f"where={{'uid': ...}} takes the number of a user, not {uid!r}")
    if uid is not None and not 0 <= uid < _UIDS:
        raise ParameterError("where", f"must be the number of a user, not {uid}", name="where={'uid': ...}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"where={{'name': ...}} takes a pattern for names, for example 'sensor-*', not {name!r}")
    if group is not None:
        checked_name(group)
    return wanted
