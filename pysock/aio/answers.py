"""What an asyncio client answers its server: in the loop, and in tasks where a service is an ``async def``."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

from pysock.answering.services import answer_of, cancelled, failed
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.wire.format import HEADER, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from pysock.aio.connection import Connection
    from pysock.answering.services import Answer, ClientServices
    from pysock.wire.format import Frame

_ASK: Final = int(Kind.ASK)
_pack: Final = HEADER.pack


class Answers(Unique):
    """Of one connection.

    :param most: how many bytes the server takes.
    """

    def __init__(self, services: ClientServices, connection: Connection, most: int) -> None:
        self._services = services
        self._connection = connection
        self._most = most
        self._fresh: dict[int, bytes] = {}  # what has come in this pass of the loop
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def take(self, frame: Frame) -> None:
        """An ASK or an ASK_CANCEL."""
        number = frame.request_id
        if frame.kind == _ASK:
            if not self._fresh:
                self._connection.loop.call_soon(self._begin)
            self._fresh[number] = frame.payload
        elif self._fresh.pop(number, None) is not None:
            self._send(number, cancelled())
        elif (task := self._tasks.get(number)) is not None:
            task.cancel()

    def _begin(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for number, payload in fresh.items():
            if self._connection.error is not None:
                return
            try:
                handler, waits, request = self._services.find(payload)
                if waits:
                    self._tasks[number] = self._connection.loop.create_task(self._wait(number, handler, request))
                    continue
                answer = answer_of(copy_context().run(handler, self._services.owner(), request), self._most)
            except Exception as error:
                answer = failed(error)
            self._send(number, answer)

    async def _wait(self, number: int, handler: Callable[..., Any], request: bytes) -> None:
        try:
            answer = answer_of(await handler(self._services.owner(), request), self._most)
        except asyncio.CancelledError:
            answer = cancelled()
        except Exception as error:
            answer = failed(error)
        finally:
            self._tasks.pop(number, None)
        self._send(number, answer)

    def _send(self, number: int, answer: Answer) -> None:
        if self._connection.error is None:
            kind, code, payload = answer
            data = payload if type(payload) is bytes else bytes(payload)
            self._connection.output.put(_pack(len(data), kind, 0, code, number), data, idle=False)

    def end(self) -> None:
        """The connection has ended: what goes on in tasks is cancelled."""
        for task in tuple(self._tasks.values()):
            task.cancel()
