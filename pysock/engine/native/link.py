"""The client's end of one connection, in C; here what a call gave becomes results, or an exception."""

from __future__ import annotations

import errno
import os
from collections import deque

from pysock.base import forking
from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import checked_all
from pysock.base.unique import Unique
from pysock.engine.inbox import INBOX_MAX, Inbox
from pysock.engine.inlet import TEXT_BAD_FRAME, TEXT_LARGE_FRAME, TEXT_LOST
from pysock.engine.link import BUSY, CUT_BY_ANOTHER, nothing_sent
from pysock.engine.native.crossing import ffi, lib, nanoseconds, of_linger, result_of
from pysock.errors import ConnectionLost, ProtocolError, PysockError, RequestTimeout
from pysock.wire import tracing
from pysock.wire.error_text import remote_error
from pysock.wire.features import Feature
from pysock.wire.format import Frame, Kind

if TYPE_CHECKING:
    from typing import Any, Final

#: What a call on a link can fail with, beside an exception raised inside it.
_LINK_ERRORS: Final = {
    errno.ETIMEDOUT: (RequestTimeout, "the server didn't answer in time"),
    errno.ECONNRESET: (ConnectionLost, TEXT_LOST),
    errno.EPIPE: (ConnectionLost, "the connection is closed"),
    errno.EMSGSIZE: (ProtocolError, TEXT_LARGE_FRAME),
    errno.EPROTO: (ProtocolError, TEXT_BAD_FRAME),
    errno.ECONNABORTED: (ConnectionLost, CUT_BY_ANOTHER),
    errno.EBUSY: (PysockError, BUSY),
}
#: After these it stays open, if no frame was left half sent.
_HARMLESS: Final = frozenset((errno.ETIMEDOUT, errno.ECANCELED))
_VERDICTS: Final = frozenset((Kind.CIR_ACCEPTED, Kind.CIR_REFUSED, Kind.CHALLENGE))
#: What a request with a payload that can't be sent results in.
_WRONG_PAYLOAD: Final = -errno.EINVAL
_SRM: Final = int(Kind.SRM)
_PING: Final = int(Kind.PING)


class NativeLink(Unique):
    """The client's end of one connection, in C."""

    def __init__(self, fd: int, linger: float | None, max_payload: int) -> None:
        self.inbox: Inbox = Inbox((), INBOX_MAX)
        self._verdicts: deque[Frame] = deque()  # on a CIR or a PROOF, that came while something was being sent
        error = ffi.new("int *")
        link = lib.ps_pylink_new(fd, of_linger(linger), max_payload, error)
        if link == ffi.NULL:
            result_of(error[0])
        made: list[Any] = []
        try:
            result_of(lib.ps_pylink_method(link, id(made)))
        except OSError:
            lib.ps_pylink_disown(link)  # the descriptor stays the caller's
            lib.ps_pylink_free(link)
            raise
        # It owns what there is in C, which so is freed with this object, and not when it is closed: another thread may
        # be inside a call. Not by ffi.gc(): of garbage that is freed before the __del__ of a client that closes it.
        self._request = made[0]
        self._link: Any = link  # None: closed
        self._traces = False
        forking.own(self)

    @property
    def closed(self) -> bool:
        return self._link is None

    def agree(self, features: int) -> None:
        lib.ps_pylink_agree(self._open(), features)
        self._traces = bool(features & Feature.TRACE)

    def _trace(self) -> bytes | None:
        """Of which trace what is sent now is a part, where the server wants to know it."""
        return tracing.inject() if tracing.inject is not None and self._traces else None

    def _finish(self, result: int, raised: list[BaseException], fates: list[Any] | None = None) -> None:
        if result == 0:
            return
        link = self._link
        # None: this is a child, forked by a signal's handler in the middle of the call. Busy: it is another's call.
        if link is not None and result != -errno.EBUSY and (-result not in _HARMLESS or lib.ps_pylink_broken(link)):
            self.close()
        if raised:
            raise raised[0]
        kind, text = _LINK_ERRORS.get(-result, (ConnectionLost, os.strerror(-result)))
        error = kind(text)
        if fates is not None and isinstance(error, ConnectionLost):
            error.fates = [remote_error(*fate) if type(fate) is tuple else fate for fate in fates]
        raise error

    def _open(self) -> Any:
        if self._link is None:
            raise nothing_sent("the connection is closed")
        return self._link

    def send(
        self, kind: int, code: int, request_id: int, payload: Buffer, timeout: float | None, flags: int = 0
    ) -> None:
        if kind == _SRM and (trace := self._trace()):
            self.send(Kind.TRACE, 0, request_id, trace, timeout)
        raised: list[BaseException] = []
        greets = kind == Kind.PROOF
        others = Inbox((), INBOX_MAX) if greets else self.inbox
        wait = -1 if timeout is None else nanoseconds(timeout)
        result = lib.ps_pylink_send(
            self._open(), kind, flags, code, request_id, id(payload), wait, id(others), id(raised)
        )
        if greets:
            self._sort(others)
        if result == -errno.ECONNRESET and self._verdicts:
            self.close()  # what was being sent came too late; the verdict says why
            return
        self._finish(result, raised)

    def _sort(self, others: Inbox) -> None:
        for frame in map(Frame._make, others):
            (self._verdicts if frame.kind in _VERDICTS else self.inbox).append(frame)

    def receive(self, timeout: float | None) -> Frame:
        if self._verdicts:
            return self._verdicts.popleft()
        raised: list[BaseException] = []
        got: deque[tuple[int, int, int, int, bytes]] = deque()
        wait = -1 if timeout is None else nanoseconds(timeout)
        self._finish(lib.ps_pylink_receive(self._open(), wait, id(got), id(raised)), raised)
        return Frame._make(got[0])

    def listen(self, timeout: float | None, has: bool = True, inbox: Any = None) -> None:
        raised: list[BaseException] = []
        wait = -1 if timeout is None else nanoseconds(timeout)
        inbox = self.inbox if inbox is None else inbox
        self._finish(lib.ps_pylink_listen(self._open(), has, wait, id(inbox), id(raised)), raised)

    def _exchange(
        self, kind: int, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        """The results, and how many of them are errors, as code, request id and text; or why nothing was sent."""
        raised: list[BaseException] = []
        results: list[Any] = [None] * len(payloads)
        wait = -1 if timeout is None else nanoseconds(timeout)
        self._open()
        result = self._request(kind, service, payloads, limit, results, window, wait, self.inbox, raised, None)
        if result < 0 and result != _WRONG_PAYLOAD:
            self._finish(result, raised, results)
        return results, result

    def request(self, service: int, payload: Buffer, timeout: float | None) -> bytes:
        # As _exchange() does it, but for one: this is what most programs do all the time.
        raised: list[BaseException] = []
        got: list[Any] = [None]
        wait = -1 if timeout is None else nanoseconds(timeout)
        if self._link is None:
            self._open()
        trace = None if tracing.inject is None else self._trace()
        result = self._request(_SRM, service, [payload], len(payload), got, 1, wait, self.inbox, raised, trace)
        if result < 0:
            self._finish(result, raised, got)
        if result:
            raise remote_error(*got[0])
        return got[0]  # type: ignore[no-any-return]  # bytes

    def ping(self, payload: Buffer, timeout: float | None) -> tuple[int, bytes]:
        ((code, _id, answer, _flags),), _ = self._exchange(_PING, 0, [payload], len(payload), timeout, 1)
        return code, answer

    def request_many(
        self, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        # C looks at each payload anyway: nothing here takes time for each, unless something is wrong.
        results, errors = self._exchange(_SRM, service, payloads, limit, timeout, window)
        if errors == _WRONG_PAYLOAD:
            results, errors = self._exchange(_SRM, service, checked_all(payloads, limit), limit, timeout, window)
        if errors:
            results = [result if type(result) is bytes else remote_error(*result) for result in results]
        return results, errors

    def next_request_id(self) -> int:
        return int(lib.ps_pylink_next_id(self._open()))

    def drain(self) -> None:
        if self._link is not None:
            raised: list[BaseException] = []
            self._finish(lib.ps_pylink_drain(self._link, id(raised)), raised)

    def close(self) -> None:
        with forking.guard:
            link, self._link = self._link, None
            if link is not None:
                lib.ps_pylink_close(link)

    def abandon(self, why: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            lib.ps_pylink_abandon(link)
