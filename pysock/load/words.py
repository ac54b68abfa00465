"""What is said of a run that failed, for each way it may: the server answered wrongly, or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from pysock.calls.initiation import explained
from pysock.engine.native.outcome import Failure, Outcome
from pysock.errors import PysockError
from pysock.load.options import LoadOptions
from pysock.wire.format import ErrorCode, Refusal

_NO_KEY: Final = ", and the load generator has none"


class LoadError(PysockError):
    """The run failed: the server answered wrongly, or not at all."""


def explain(outcome: Outcome, options: LoadOptions) -> Exception:
    """Return what is to be raised."""
    number = -outcome.error
    if outcome.failure == Failure.CONNECT:
        return explained(OSError(number, os.strerror(number)), options.address)
    if outcome.failure == Failure.SYSTEM:
        text = f"{options.address}: {os.strerror(number)}"
        if number == errno.EMFILE:
            text += f"; {options.connections} connections need a higher limit, see ulimit -n"
        return OSError(number, text)
    return LoadError(f"{options.address}: {_TEXTS[Failure(outcome.failure)](outcome, options)}")


def said_by_server(outcome: Outcome) -> str:
    """Return the words of an ERROR, or what its code means."""
    if outcome.text:
        return outcome.text
    names = [code.name.lower().replace("_", " ") for code in ErrorCode if code == outcome.code]
    return names[0] if names else f"error {outcome.code}"


def _stalled(outcome: Outcome, options: LoadOptions) -> str:
    if not outcome.connections:
        return f"no connection was let in within {options.stall:g} seconds{_hint(options)}"
    if outcome.connections < options.connections:
        return f"only {outcome.connections} of {options.connections} connections were let in{_hint(options)}"
    return f"no reply came for {options.stall:g} seconds{_hint(options)}"


def _refused(outcome: Outcome, _options: LoadOptions) -> str:
    no_key = _NO_KEY if outcome.code == Refusal.WRONG_PROOF else ""
    return f"the server refused a connection: {outcome.text}{no_key}"


def _hint(options: LoadOptions) -> str:
    return f"; does a server listen there that echoes in the framing {options.framing!r}?"


_TEXTS: Final[dict[Failure, Callable[[Outcome, LoadOptions], str]]] = {
    Failure.HUNG_UP: lambda _outcome, options: f"the server closed a connection before it answered{_hint(options)}",
    Failure.STALLED: _stalled,
    Failure.REFUSED: _refused,
    Failure.CHALLENGED: lambda _outcome, _options: f"the server wants an auth key{_NO_KEY}",
    Failure.NOT_PYSOCK: lambda _outcome, options: f"the answer to the CIR isn't pysock's protocol{_hint(options)}",
    Failure.NO_SERVICE: lambda outcome, options: (
        f"the server has no service {options.service!r}; it has {outcome.text or 'none with a name'}"
    ),
    Failure.TOO_LARGE: lambda outcome, options: (
        f"the server takes at most {outcome.expected} bytes in a request, not {options.size}"
    ),
    Failure.WRONG_KIND: lambda outcome, _options: f"the server sent a frame of kind {outcome.got:#04x}, not a reply",
    Failure.WRONG_ID: lambda outcome, _options: f"a reply has the id {outcome.got}, which no request in flight has",
    Failure.WRONG_LENGTH: lambda _outcome, options: f"a reply isn't as long as its request{_hint(options)}",
    Failure.WRONG_BYTES: lambda outcome, options: (
        f"a reply isn't what was sent: its byte {outcome.position} is {outcome.got:#04x}, not {outcome.expected:#04x}"
        f"{_hint(options)}"
    ),
    Failure.UNASKED: lambda _outcome, options: f"more bytes came back than were sent{_hint(options)}",
    Failure.GIVEN_UP: lambda outcome, _options: f"the server gave up a connection: {said_by_server(outcome)}",
    Failure.SHUTTING_DOWN: lambda outcome, _options: f"the server is shutting down: {outcome.text}",
}
