"""Groups over all nodes: a node hears what is sent to a group as long as one of its clients is in it."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import checked
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from pysock.base.aliases import Buffer
    from pysock.cluster.bus.contract import Bus, Hears, Subscription
    from pysock.cluster.member import Member
    from pysock.cluster.sending import Spread
    from pysock.cluster.subjects import Subjects
    from pysock.directory.groups import Groups


class Heard(Unique):
    """The groups that one node hears of. What is told comes under the lock of the groups, so this needs none."""

    def __init__(self, groups: Groups, bus: Bus, subjects: Subjects, heard: Hears) -> None:
        self._groups = groups
        self._bus = bus
        self._subjects = subjects
        self._heard = heard
        self._subscribed: dict[str, Subscription] = {}

    def begin(self) -> None:
        """Nobody is in any yet."""
        self._groups.watch = self._changed

    def end(self) -> None:
        """The node hears no more of any."""
        self._groups.watch = None

    def _changed(self, name: str) -> None:
        """It has its first member, or no longer one."""
        if self._groups.count(name):
            if name not in self._subscribed:
                self._subscribed[name] = self._bus.subscribe(self._subjects.group(name), self._heard)
        elif name in self._subscribed:
            self._subscribed.pop(name).end()


class ClusterGroup:
    """The clients of all nodes that are in the group of this name; made by ``cluster.group()``.

    :ivar name: its name.
    """

    __slots__ = ("_member", "name")

    def __init__(self, name: str, member: Member) -> None:
        self.name: str = name
        self._member = member

    def send(self, payload: Buffer) -> Spread:
        """Send it to every member on every node; it waits for nothing, so it may be called in the server's loop, too.

        At most once, never twice; whether the other nodes' members get it isn't known.

        :raises FrameTooLarge: the payload is over ``Limits.max_payload``, or over what the bus takes less 4 KiB.
        :raises OSError: ``ENOBUFS``, as for :meth:`pysock.DataSocket.send`: too much waits for this node's loop.
        :raises TypeError: the payload isn't bytes-like.
        """
        member = self._member
        return member.sending.to_group(self.name, checked(payload, member.limit, "Limits.max_payload"))

    def __repr__(self) -> str:
        return f"<ClusterGroup {self.name!r}>"
