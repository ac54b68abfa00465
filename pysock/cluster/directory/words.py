"""The numbers of the directory's protocol, and what its states are called."""

from __future__ import annotations

from enum import Enum

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: Seconds between two heartbeats of a node.
HEARTBEAT: Final = 1.0
#: Seconds after which a silent node is suspected, and after which it is gone with all its clients: 5, less what it
#: takes to notice. Measured by the clock of whoever listens, and only while that one runs and hears itself.
SUSPECT: Final = 3.0
GONE: Final = 4.8
#: A node that doesn't hear itself for so long doesn't judge others; and after so long it has the bus connect again.
DEAF: Final = 2.5
RECONNECT: Final = 4.0
#: Seconds for which the clients of others are remembered while the bus is down.
REMEMBERED: Final = 30.0

#: What is told of clients waits for so many seconds, or until it has so many bytes.
BATCH: Final = 0.02
BATCH_BYTES: Final = 32 * 1024
#: Of clients that went, in one message: their ids are in one field.
LEAVES_MAX: Final = 4096

#: A list that has to be fetched from its owner is asked for after a moment by chance, the longer the more nodes there
#: are that may have lost the same message; so many at once, page by page.
JITTER: Final = 0.1
JITTER_MAX: Final = 2.0
FETCHED_AT_ONCE: Final = 2
#: Seconds for a page, and how often it is asked for.
PAGE_TIMEOUT: Final = 0.5
PAGE_TRIES: Final = 4
#: Seconds for which an owner keeps the pages for one who asks.
KEPT: Final = 10.0

#: Who is new, or back, asks all others to show themselves; they do so within this time, and it waits for a bit longer.
SHOWN_WITHIN: Final = 0.1
SETTLED_AFTER: Final = 0.25

#: Seconds by which a program that was stopped may be late, without taking its own silence for that of others.
STALL: Final = 0.5

#: More nodes than that are none: somebody forges them.
NODES_MAX: Final = 512
#: Batches that wait for the list that they belong to, in bytes.
WAITING_MAX: Final = 4 * 1024 * 1024


class ClusterState(str, Enum):
    """How far what a node knows of its cluster can be relied upon. Each is equal to its text, ``"lost"`` say."""

    LOST = "lost"  # the bus is down: what is known of others is stale, and is forgotten after 30 seconds
    SYNCING = "syncing"  # the bus is there, and not all is known yet
    CONNECTED = "connected"

    def __str__(self) -> str:
        return self.value


class NodeChange(str, Enum):
    """What has become of a node. Each is equal to its text, ``"joined"`` say."""

    JOINED = "joined"
    CHANGED = "changed"  # other addresses, or it goes on or off serving
    SUSPECT = "suspect"  # silent for 3 seconds
    BACK = "back"  # no longer suspect, or no longer stale
    LEFT = "left"  # it has said goodbye
    GONE = "gone"  # silent for 5 seconds, or stale for 30

    def __str__(self) -> str:
        return self.value
