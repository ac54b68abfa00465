"""The server's services as a client knows them: by their names, from the answer to its CIR."""

from __future__ import annotations

from collections.abc import Mapping

from pysock.errors import RemoteError
from pysock.wire import texts
from pysock.wire.format import ErrorCode, ServiceOption


class NamedServices:
    """The numbers of the named ones; number 0 is the unnamed one."""

    __slots__ = ("_options", "numbers", "streaming")

    def __init__(self, services: Mapping[str, int], options: Mapping[int, int]) -> None:
        self.numbers: dict[str, int] = {name: number for name, number in services.items() if name}
        self._options = options
        #: The numbers of those that answer in pieces.
        self.streaming: frozenset[int] = frozenset(
            number for number, bits in options.items() if bits & ServiceOption.STREAMS
        )

    def is_idempotent(self, service: str | None) -> bool:
        """Whether the server says that its requests may be run twice."""
        number = 0 if service is None else self.numbers.get(service, -1)
        return bool(self._options.get(number, 0) & ServiceOption.IDEMPOTENT)

    def number(self, service: str | None) -> int:
        """What stands for it on the wire.

        :raises RemoteError: the server has none of this name.
        """
        if service is None:
            return 0
        number = self.numbers.get(service)
        if number is None:
            text = f"the server has no service {service!r}; it has {self._known()}"
            raise RemoteError(text, ErrorCode.NO_SUCH_SERVICE)
        return number

    def telling(self, error: RemoteError) -> RemoteError:
        """The same error; where the unnamed service is missing, with the names of those there are."""
        if error.code != ErrorCode.NO_SUCH_SERVICE or error.message != texts.NO_SUCH_SERVICE:
            return error
        told = RemoteError(f"{error.message}: the server has no unnamed one; it has {self._known()}", error.code)
        told.request_id, told.started = error.request_id, error.started
        return told

    def _known(self) -> str:
        own = "_"  # what begins so is the server's own, for commands to it
        return ", ".join(repr(name) for name in self.numbers if not name.startswith(own)) or "no named ones"
