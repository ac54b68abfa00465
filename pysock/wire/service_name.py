"""The name of a client's service, as an ASK has it."""

from __future__ import annotations

from pysock.errors import ParameterError
from pysock.wire.format import LARGEST_NAME


def encoded_name(name: object, parameter: str) -> bytes:
    """Return its bytes; none are the service without a name.

    :param parameter: that it was given as, or in.
    :raises TypeError: it is neither a ``str`` nor ``None``.
    :raises ParameterError: it is too long, or empty.
    """
    if name is None:
        return b""
    if not isinstance(name, str):
        raise TypeError(f"a service's name is a str, or None for the unnamed one, not {name!r}")
    encoded = name.encode("utf-8", "replace")
    if not 0 < len(encoded) <= LARGEST_NAME:
        problem = f"must have 1 to {LARGEST_NAME} bytes in UTF-8, not {len(encoded)}"
        raise ParameterError(parameter, problem, name="a service's name")
    return encoded
