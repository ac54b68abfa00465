"""What a program says to a cluster, checked."""

from __future__ import annotations

import os
import socket

from pysock.base.deadlines import FOREVER, checked_timeout
from pysock.cluster.directory.messages import is_node_name
from pysock.errors import ParameterError


def checked_node(node: str | None) -> str:
    """The name of a node; one that wasn't given is made of the host's name and the process's id.

    :raises ParameterError: it can't be one.
    """
    if node is None:
        name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in socket.gethostname())
        return f"{name[:64] or 'host'}-{os.getpid()}"
    if not isinstance(node, str) or not is_node_name(node):
        problem = f"must have 1 to 128 characters that can be shown, without blanks, / and commas, not {node!r}"
        raise ParameterError("node", problem)
    return node


def seconds_of(timeout: float) -> float:
    """How long to wait, in seconds."""
    seconds = checked_timeout(timeout)
    return FOREVER if seconds is None else seconds


def checked_client(name: str) -> str:
    """The name of a client.

    :raises TypeError: it is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a client is a str, not {name!r}")
    return name
