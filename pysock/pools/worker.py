"""``python -m pysock.pools.worker MODULE:NAME FD``: a worker process, which a server starts.

It imports the handler, says that it is there, and answers one request after the other, until the server closes its end.
"""

from __future__ import annotations

import importlib
import operator
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from pysock.base.imported import importing
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.guards import type_name
from pysock.errors import RemoteError
from pysock.pools.channel import FAILED, MEANT, NOTHING, REPLY, failed, meant, receive, send
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any, Final

#: The variables of the environment by which the server hands over its ``sys.path``, and what the first one was before.
PATH: Final = "PYTHONPATH"
FORMER_PATH: Final = "PYSOCK_FORMER_PYTHONPATH"

#: How long a process may take to end by itself when its server is gone, in seconds.
_PATIENCE: Final = 1.0


def main(target: str, fd: str) -> None:
    """Serve until the server is gone."""
    # Ctrl-C goes to all processes of a terminal: the server decides what becomes of its requests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(fd)) as sock:
        sock.set_inheritable(False)
        threading.Thread(target=_end_with_the_server, args=(sock.fileno(),), daemon=True).start()
        _take_over_path()
        handler = _imported(target, sock)
        if handler is None:
            return
        with suppress(EOFError, OSError):  # the server is gone, or wants this process no more
            send(sock, REPLY, b"")
            while True:
                request = bytes(receive(sock))
                send(sock, *_answer(handler, request))


def _end_with_the_server(fd: int) -> None:
    """Where it was killed nobody ends a handler that takes long."""
    poll = select.poll()
    poll.register(fd, 0)  # its end is always told
    poll.poll()
    time.sleep(_PATIENCE)
    os._exit(1)


def _take_over_path() -> None:
    sys.path[:] = os.environ.pop(PATH).split(os.pathsep)
    former = os.environ.pop(FORMER_PATH, None)
    if former is not None:
        os.environ[PATH] = former


def _imported(target: str, sock: socket.socket) -> Callable[[bytes], Any] | None:
    module, _, name = target.partition(":")
    try:
        with importing():
            return operator.attrgetter(name)(importlib.import_module(module))  # type: ignore[no-any-return]
    except (Exception, SystemExit) as error:  # a module that ends the program at import would do so without a word
        with suppress(OSError):
            send(sock, FAILED, _failed(error))
        return None


def _answer(handler: Callable[[bytes], Any], request: bytes) -> tuple[bytes, Any]:
    try:
        reply = handler(request)
        if reply is None:
            return NOTHING, b""
        return REPLY, reply if type(reply) is bytes else _as_bytes(reply)
    except RemoteError as error:
        with suppress(Exception):  # a code that is none
            return MEANT, meant(error)
        return FAILED, _failed(error)
    except BaseException as error:  # SystemExit, too, fails one request, and ends nothing
        return FAILED, _failed(error)


def _as_bytes(reply: Any) -> memoryview:
    try:
        view = memoryview(reply)
    except TypeError:
        advice = texts.ENCODE if issubclass(type(reply), str) else ""
        raise TypeError(texts.NOT_BYTES % (type_name(reply), advice)) from None
    return view.cast("B") if view.c_contiguous else memoryview(bytes(view))


def _failed(error: BaseException) -> bytes:
    try:
        text = str(error)
    except Exception:
        text = ""
    return failed(type_name(error), text, "".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main(*sys.argv[1:])
