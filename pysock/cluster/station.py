"""The thread that keeps a node's directory: who came and went here, what was heard of others, and what is due.

Other threads only hand things over, and never wait for it: the server's loop, which tells of its clients, and the bus's
thread, which tells of other nodes. What comes of it is published, and told to ``happened``, in this thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.daemons import explained_without_daemons
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.cluster.alarms import Alarms
from pysock.cluster.bus.contract import BusState
from pysock.cluster.directory.events import Deaf, StateEvent
from pysock.cluster.directory.words import BATCH, ClusterState
from pysock.errors import BusDown, FrameTooLarge

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.cluster.bus.contract import Bus
    from pysock.cluster.directory.events import Event
    from pysock.cluster.directory.machine import Directory
    from pysock.cluster.directory.messages import Message, NodeInfo
    from pysock.cluster.subjects import Subjects

#: What is handed over: a method of the directory's, and what it is told; the time is added.
_PATIENCE: Final = 5.0  # for its end, in seconds


class Station(Unique):
    """Of one node.

    :param happened: told of each event of the directory's; it must not wait.
    :ivar alarms: what else is done in this thread.
    :ivar connected: set while the directory is.
    """

    def __init__(self, bus: Bus, directory: Directory, subjects: Subjects, happened: Callable[[Event], None]) -> None:
        self.alarms: Alarms = Alarms()
        self.connected: threading.Event = threading.Event()
        self._bus = bus
        self._directory = directory
        self._subjects = subjects
        self._happened = happened
        self._told: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = threading.Event()
        self._is_soon = False  # it comes round within the time for which joins may wait
        self._is_over = False
        self._thread: threading.Thread | None = None

    # Any thread

    def start(self) -> None:
        """Begin."""
        with explained_without_daemons():
            self._thread = threading.Thread(target=self._run, name="pysock cluster", daemon=True)
            self._thread.start()

    def joined(self, client_id: int, name: bytes, connected_at: float, moved: bool) -> None:
        """A client has come to this node. Many of them are told of together, so this seldom wakes anybody."""
        if moved:
            self._told.append((self._directory.rivals.moved, (client_id,)))
        self._told.append((self._directory.joined, (client_id, name, connected_at)))
        if not self._is_soon:
            self._woken.set()

    def left(self, client_id: int) -> None:
        """It has gone."""
        self._told.append((self._directory.left, (client_id,)))
        if not self._is_soon:
            self._woken.set()

    def heard(self, message: Message) -> None:
        """What another node has said of itself."""
        self._tell(self._directory.take, message)

    def described(self, info: NodeInfo) -> None:
        """The node has other addresses, say."""
        self._tell(self._directory.described, info)

    def bus_changed(self, state: BusState) -> None:
        """The bus is there, or isn't."""
        self._tell(self._directory.connected if state is BusState.CONNECTED else self._directory.lost)

    def alarm(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Call this in so many seconds; what is returned calls it off."""
        alarm = self.alarms.set(monotonic() + seconds, function)
        self._woken.set()
        return lambda: self.alarms.call_off(alarm)

    def goodbye(self) -> None:
        """Say goodbye, as the last thing, and wait for the thread; not for what becomes of it."""
        self._tell(self._end)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        self._told.append((function, args))
        self._woken.set()

    # The thread

    def _run(self) -> None:
        while True:
            try:
                due = self._turn()
            except Exception:  # the thread must live: without it the node would be gone for all others
                log.exception("the directory of a cluster's node has failed; it goes on")
                due = BATCH
            if self._is_over:
                return
            self._is_soon = due <= BATCH
            if self._told:  # whoever has looked at the flag before it was set has left it to this thread
                due = min(due, BATCH)
            self._woken.wait(due)
            self._woken.clear()

    def _turn(self) -> float:
        """What was told, and what is due; in how many seconds to come again."""
        self._is_soon = True
        for _ in range(len(self._told)):
            function, args = self._told.popleft()
            function(*args, monotonic())
        for function in self.alarms.due(monotonic()):
            function()
        now = monotonic()
        due = self._directory.step(now)
        self._publish()
        while self._directory.events:
            self._dispatch(self._directory.events.popleft())
        if self._directory.out:  # what an event has caused
            self._publish()
        return max(0.0, min(due, self.alarms.next() - now))

    def _publish(self) -> None:
        out, node, everybody = self._directory.out, self._subjects.node, self._subjects.all
        try:
            while out:
                to, payload = out.popleft()
                self._bus.publish(everybody if to is None else node(to), payload)
        except BusDown:
            out.clear()  # nobody has got it: they will find that numbers are missing
        except FrameTooLarge as error:
            log.error("the bus of a cluster takes too little: %s", error)

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Deaf):
            self._bus.reconnect()
            return
        if isinstance(event, StateEvent):
            (self.connected.set if event.new is ClusterState.CONNECTED else self.connected.clear)()
        self._happened(event)

    def _end(self, _now: float) -> None:
        self._is_over = True
        self._directory.goodbye()
