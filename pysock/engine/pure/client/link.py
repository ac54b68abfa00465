"""The client's end of one connection, as the contract has it: frames in, what a call gave out."""

from __future__ import annotations

from contextlib import suppress

from pysock.base.aliases import Buffer
from pysock.base.deadlines import deadline_of
from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import checked_all
from pysock.engine.pure.client.call import Asking, Call, Draining, Listening, frame_parts, srm_parts
from pysock.engine.pure.client.exchange import Exchange
from pysock.engine.pure.client.pipeline import Pipeline
from pysock.errors import ConnectionLost, RequestTimeout
from pysock.wire import tracing
from pysock.wire.error_text import remote_error
from pysock.wire.features import Feature
from pysock.wire.format import Frame, Kind

if TYPE_CHECKING:
    from typing import Any, Final

_REPLY: Final = int(Kind.REPLY)
_ERROR: Final = int(Kind.ERROR)
_BYE: Final = int(Kind.BYE)
_PROOF: Final = int(Kind.PROOF)
_SRM: Final = int(Kind.SRM)
_TRACE: Final = int(Kind.TRACE)


class PureLink(Exchange):
    """See :class:`pysock.engine.link.Link`."""

    def agree(self, features: int) -> None:
        """What both ends speak."""
        self._features = self._judge.features = features

    def send(  # as the contract has it
        self, kind: int, code: int, request_id: int, payload: Buffer, timeout: float | None, flags: int = 0
    ) -> None:
        """Send one frame whole."""
        if kind == _SRM and (trace := self._trace()):
            self.send(_TRACE, 0, request_id, trace, timeout)
        if kind == _BYE and not self._is_ours():
            raise ConnectionLost("the program has closed the connection's descriptor")
        call = Call(*frame_parts(kind, flags, code, request_id, payload))
        call.greets = kind == _PROOF
        try:
            self._run(call, deadline_of(timeout))
        except ConnectionLost:
            if kind != _PROOF or not self._verdicts:
                raise  # else what was being sent came too late; the verdict says why

    def receive(self, timeout: float | None) -> Frame:
        """The next frame, whatever it is."""
        if self._verdicts:
            return self._verdicts.popleft()
        call = Listening(greets=True)
        self._run(call, deadline_of(timeout))
        return call.frame  # type: ignore[no-any-return]  # Frame

    def listen(self, timeout: float | None, has: bool = True, inbox: Any = None) -> None:
        """Until something is in the inbox."""
        self._run(Listening(), deadline_of(timeout), has and (self.inbox if inbox is None else inbox))

    def request(self, service: int, payload: Buffer, timeout: float | None) -> bytes:
        """One SRM and its reply."""
        request_id, end = self.next_request_id(), deadline_of(timeout)
        head, tail = srm_parts(service, request_id, payload, self._said(end))
        if tracing.inject is not None and (trace := self._trace()):
            head = b"".join((*frame_parts(_TRACE, 0, 0, request_id, trace), head))
        call = Asking(request_id, _REPLY, head, tail)
        self._run_in_time(call, end)
        frame = call.frame
        if frame.kind == _ERROR:
            raise remote_error(frame.code, frame.request_id, frame.payload, frame.flags)
        return frame.payload  # type: ignore[no-any-return]  # bytes

    def ping(self, payload: Buffer, timeout: float | None) -> tuple[int, bytes]:
        """One PING and its PONG."""
        request_id = self.next_request_id()
        call = Asking(request_id, int(Kind.PONG), *frame_parts(int(Kind.PING), 0, 0, request_id, payload))
        self._run(call, deadline_of(timeout))
        return call.frame.code, call.frame.payload

    def request_many(
        self, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        """Pipelined SRMs: a reply or a ``RemoteError`` for each, in order."""
        self._check_open()
        data, end = checked_all(payloads, limit), deadline_of(timeout)
        pipeline = Pipeline(service, data, max(1, window), self.next_request_id(len(data)), self._said(end))
        self._run_in_time(pipeline, end)
        return pipeline.results, pipeline.errors

    def _trace(self) -> bytes | None:
        """Of which trace what is sent now is a part, where the server wants to know it."""
        return tracing.inject() if tracing.inject is not None and self._features & Feature.TRACE else None

    def _said(self, end: float | None) -> float | None:
        """The deadline, where the server wants to know it."""
        return end if self._features & Feature.DEADLINE else None

    def _run_in_time(self, call: Asking | Pipeline, end: float | None) -> None:
        """Run it; where its time is over the server is told that nobody waits.

        What the kernel doesn't take now, or another thread is in the way of, is left: the server does in vain then what
        it would have been spared.
        """
        try:
            self._run(call, end)
        except ConnectionLost as error:
            error.fates = call.fates()
            raise
        except RequestTimeout:
            if self._features & Feature.CANCEL and not self._closed:
                with suppress(RequestTimeout, ConnectionLost):
                    for request_id in call.unanswered():
                        self.send(int(Kind.CANCEL), 0, request_id, b"", 0)
            raise

    def drain(self) -> None:
        """Wait until no other thread is in a call, but to listen."""
        share, call = self._share, Draining()
        try:
            share.join(call)
            while not self._closed and not share.is_quiet(call):
                share.sleep(call, None)
        finally:
            if call.thread in share.calls:
                del share.calls[call.thread]
            self._left(call)

    def next_request_id(self, count: int = 1) -> int:
        """The first of so many numbers in a row. 0 isn't one: it is in frames that answer nothing."""
        if self._last_id + count > 0xFFFFFFFF:
            self._last_id = self._features = 0
        first = self._last_id + 1
        self._last_id += count
        return first
