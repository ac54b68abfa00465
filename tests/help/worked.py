"""Handlers that worker processes import, alone here: what the tests need is imported by no process, too."""

from __future__ import annotations

import os
import signal
import time

from pysock import RemoteError


def swap(request):
    return request[::-1]


def double(request):
    return request * 2


def nothing(_request):
    return None


def text(_request):
    return "text"


def view(request):
    return memoryview(request)[::2]


def raises(request):
    raise ZeroDivisionError(request.decode())


def fails(request):
    raise LookupError(request.decode())


def means(request):
    raise RemoteError(request.decode(), 77)


def ends(_request):
    raise SystemExit(3)


def pid(request):
    """Which process it is; or it dies."""
    if request == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    return b"%d" % os.getpid()


def slow(request):
    """It sleeps so long, in seconds."""
    time.sleep(float(request))
    return request
