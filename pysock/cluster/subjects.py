"""Under which subjects the nodes of one cluster speak. Whoever may use those below the first two words is a node."""

from __future__ import annotations

from hashlib import blake2b

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.bus.subjects import is_word
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

_LARGEST_WORD: Final = 64


class Subjects:
    """Those of one cluster.

    :param name: the cluster's.
    :ivar prefix: what all of them begin with.
    :ivar all: what is announced to all nodes.
    :ivar broadcast: what is for the clients of all nodes.
    :ivar find: under which clients ask where the nodes are.
    :raises ParameterError: a cluster can't be called so.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not is_word(name) or len(name) > _LARGEST_WORD:
            problem = (
                f"must be of 1 to {_LARGEST_WORD} letters, digits, - and _, for it is part of subjects, not {name!r}"
            )
            raise ParameterError("name", problem)
        self.prefix: str = f"pysock.{name}"
        self.all: str = f"{self.prefix}.a"
        self.broadcast: str = f"{self.prefix}.b"
        self.find: str = f"{self.prefix}.f"

    def node(self, epoch: int) -> str:
        """What is for one node."""
        return f"{self.prefix}.n.{epoch:016x}"

    def group(self, name: str) -> str:
        """What is for the members of a group; two groups may have one subject, so each message has the name, too."""
        return f"{self.prefix}.g.{_hashed(name)}"

    def service(self, name: str) -> str:
        """Calls of a service, of which one node gets each."""
        is_plain = is_word(name) and len(name) <= _LARGEST_WORD
        return f"{self.prefix}.s.{name}" if is_plain else f"{self.prefix}.h.{_hashed(name)}"


def _hashed(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
