"""What the fields of the messages are called: their tags. What is critical must be understood, see fields.py."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.handover.fields import CRITICAL

if TYPE_CHECKING:
    from typing import Final

# HELLO
VERSIONS: Final = CRITICAL | 1
SOFTWARE: Final = 2  # HELLO and OFFER
FRAMING: Final = 3
KEY: Final = 4  # what stands for the auth key; nothing where there is none
ADDRESS: Final = 5  # once for each, as the program says it
MAX_CLIENTS: Final = 6
ROOM: Final = 7  # descriptors that it can take
LENT: Final = 8  # it has its listeners from somebody else
DOOR: Final = 9  # where it waits for who comes after it; HELLO and LISTENERS

# OFFER
VERSION: Final = CRITICAL | 1
PID: Final = 3
SERVICE: Final = 4  # once for each, in the order of their numbers from 1 on
COUNT: Final = 5  # of clients

# REFUSE, GAVE_UP, ABORT
WHY: Final = 1

# LISTENERS: once for each, with the descriptor of its socket and that of its lock, if there is one
LISTENER: Final = CRITICAL | 1

# FREEZE
SLOTS: Final = CRITICAL | 1
GENERATION: Final = CRITICAL | 2

# ROWS, TAKEN
NUMBER: Final = CRITICAL | 1
ROWS: Final = CRITICAL | 2

# EXTRA: once for each client; what is in it is said in baggage.py
BAGGAGE: Final = CRITICAL | 1

# COMMIT, ACTIVE
ROUND: Final = CRITICAL | 1

# TOTALS: once for each counter
TOTAL: Final = 1
