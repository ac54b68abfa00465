"""The exceptions. Each is also a subclass of the built-in that a user would already catch.

All of them, and what users derive from them, can be copied and pickled, and so come out of a worker process: one that
couldn't would hang a ``multiprocessing.Pool`` for ever.
"""

from __future__ import annotations

import errno

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Final, TypeVar

    E = TypeVar("E", bound=Exception)

#: What Python code can do about an error, as the end of its text. Programs whose users have options, and no parameters,
#: have other words for each: see :func:`advised`.
GIVE_KEY: Final = "pass authkey= to connect()"
KEY_AT_BOTH_ENDS: Final = "set authkey= there, or leave it out here"
KEEP_OTHERS_OUT: Final = (
    "set authkey=, listen at 127.0.0.1 or [::1], or say insecure=True if the network itself keeps others out"
)
OTHER_SERVER_UID: Final = "(server_uid)"


def advised(error: E, problem: str, advice: str) -> E:
    """Return the error with the two parts of its text as ``problem`` and ``advice``."""
    error.__dict__.update(problem=problem, advice=advice)
    return error


class ParameterError(ValueError):
    """A parameter is wrong: a mistake in the program, and so no :class:`PysockError`.

    :ivar parameter: its name.
    :ivar name: what the text begins with, which is how Python code writes the parameter; ``""``: not with that.
    :ivar problem: what is wrong, which follows.
    :ivar advice: the end of the text, or ``""``.
    """

    def __init__(self, parameter: str, problem: str = "", *, name: str | None = None, advice: str = "") -> None:
        self.parameter: str = parameter
        self.problem: str = problem
        self.advice: str = advice
        self.name: str = parameter if name is None else name
        text = " ".join(filter(None, (self.name, problem)))
        super().__init__(f"{text}: {advice}" if advice else text)


class PysockError(Exception):
    """The root of all exceptions that pysock defines, but for those of wrong parameters."""

    def __reduce__(self) -> tuple[Any, ...]:
        # BaseException's own would call the class with `args`, which are what the innermost __init__ was given.
        reduced: tuple[Any, ...] = super().__reduce__()  # type: ignore[assignment]  # typeshed: it may be a text
        return (_again, reduced[:2], *reduced[2:])

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        self.__dict__.update(state or {})  # not by setattr(), which a frozen dataclass refuses


def _again(kind: type[PysockError], args: tuple[Any, ...]) -> PysockError:
    """An exception with these ``args``; no ``__init__`` but the built-in's runs, and its attributes come later."""
    error = kind.__new__(kind, *args)
    if isinstance(error, OSError):
        OSError.__init__(error, *args)  # where a class has an __init__ of its own, OSError.__new__ leaves this to it
    return error


class ProtocolError(PysockError, ConnectionError):
    """The other end sent bytes that break the protocol. The connection is closed."""


class TLSError(PysockError, ConnectionError):
    """TLS failed: in the handshake, as where a certificate isn't good, or later. The connection is closed.

    It is for good: a client that connects again, or waits for its server, doesn't try once more.
    """


class ConnectionLost(PysockError, ConnectionResetError):
    """The connection ended before the answer came.

    If the server had said that it has answered all that it accepted (a GOAWAY with code 2), it did not run the request;
    otherwise whether it ran is unknown.
    """

    # For clients that heal, of each request of the call: its answer; its id, where the kernel has taken it whole; or
    # False, where it hasn't. Empty: nothing of the call was sent. None: it is not known.
    fates: list[Any] | None = None


class OutcomeUnknown(ConnectionLost):
    """The connection ended, the request was on its way whole, and so the server may have run it, or may not.

    A client that connects again raises it, where the request may not be run twice.

    :ivar request_id: the number of the request, as in the server's log; 0 where it isn't known.
    :ivar client_id: the number of the connection, likewise.
    :ivar sent_at: when it was first sent: seconds since the epoch, as ``time.time()``.
    """

    request_id: int = 0
    client_id: int = 0
    sent_at: float = 0.0


class ConnectionRefused(PysockError, ConnectionRefusedError):
    """The server answered the connection initiation request (CIR) with a refusal.

    An ``on_connect`` hook raises it, with a reason, to refuse a client.

    :ivar code: the refusal code of the wire protocol, see :class:`pysock.wire.format.Refusal`.
    :ivar reason: the reason in words.
    """

    def __init__(self, reason: str = "not allowed", code: int = 2) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class ServerFull(ConnectionRefused):
    """The server has as many clients as its ``Limits.max_clients`` allows."""

    def __init__(self, reason: str = "the server is full", code: int = 4) -> None:
        super().__init__(reason, code)


class RemoteError(PysockError, RuntimeError):
    """The server answered the request with an ERROR.

    In a handler, ``raise RemoteError("text")`` sends exactly that text to the client.

    :ivar code: the error code of the wire protocol, see :class:`pysock.wire.format.ErrorCode`.
    :ivar message: what the server said: of an exception in a handler its message, where the server exposes that
        (``Server(expose=...)``), else the name of its type. ``str()`` has both.
    :ivar type: the name of the exception's type; ``""`` where it was none, but words of the server's or of a handler's.
    :ivar request_id: the number of the request, as in the server's log; 0 where none was sent.
    :ivar started: ``False`` where the server says that it didn't call the handler; ``None`` where it says nothing.
    """

    type: str = ""
    request_id: int = 0
    started: bool | None = None

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Cancelled(RemoteError):
    """The request was cancelled before it had an answer: by its client, or by the end of the server."""

    def __init__(self, message: str = "the request was cancelled", code: int = 9) -> None:
        super().__init__(message, code)


class Overloaded(RemoteError):
    """Too many requests wait already: this one was not run, and may be sent again, later.

    A handler raises it to say so.
    """

    def __init__(self, message: str = "too many requests wait already", code: int = 10) -> None:
        super().__init__(message, code)


class RequestTimeout(PysockError, TimeoutError):
    """No answer in time. A late answer is thrown away; the connection stays usable.

    Where the server took so little that a request was left half sent, nothing can follow it: the client is closed then.

    :ivar started: whether the handler was called: ``False`` and ``True`` where the server has said so in time, ``None``
        where this side knows nothing.
    """

    started: bool | None = None


class FrameTooLarge(PysockError, ValueError):
    """A payload is larger than the limit of the side that would have to take it."""


class BusDown(PysockError, ConnectionError):
    """A cluster's bus isn't connected, or takes no more: surely nobody has got the message. It may be sent again.

    :ivar for_good: it can't be used until somebody has done what the message says.
    """

    for_good: bool = False


class NodeGone(PysockError, ConnectionError):
    """The node of a cluster that has the client isn't there any more: surely nobody has got the message."""


class DeliveryUnknown(OutcomeUnknown, TimeoutError):
    """A message went to another node of a cluster, and no answer came: its client may have got it, or may not.

    It is never sent again by itself.
    """


class HandoverFailed(PysockError):
    """No client has moved from one process to the other: the old one serves on, as if nothing had been."""


class AddressInUse(PysockError, OSError):
    """A live server listens at the address already."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EADDRINUSE, message)

    def __str__(self) -> str:
        return str(self.strerror)
