"""The one decision which engine runs, and in so many words why the other one doesn't."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Collection
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.engine.contract import Backend
from pysock.engine.said import REINSTALL, OnlyInMain
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

#: The values of ``PYSOCK_BACKEND`` and of ``Server(backend=...)``.
CHOICES: Final = ("auto", "native", "pure")
#: The values of ``Server(tls_driver=...)``.
DRIVERS: Final = ("auto", "ssl", "libssl")


def choose(wanted: str | None = None) -> Backend:
    """Return the backend asked for; by default what ``PYSOCK_BACKEND`` says, which is ``auto`` when unset.

    ``auto`` takes ``pure`` only where the extension isn't there, and in sub-interpreters, where it can't be used. An
    extension that is there but broken raises its own error: a fallback must not hide a broken build.

    :raises ValueError: for a name that isn't one of :data:`CHOICES`.
    :raises ImportError: if ``native`` is asked for and isn't there, or is broken.
    """
    if wanted is None or wanted == "auto":
        wanted = os.environ.get("PYSOCK_BACKEND", "auto")
    if wanted not in CHOICES:
        problem = f"unknown backend {wanted!r}: choose one of {', '.join(CHOICES)} (PYSOCK_BACKEND sets the default)"
        raise ParameterError("backend", problem, name="")
    if wanted == "pure":
        return _load("pure")
    try:
        return _load("native")
    except ImportError as error:
        absence = _absence(error)
        if absence is None:
            raise
        if wanted == "native":
            raise ImportError(f"{absence.error}, or use PYSOCK_BACKEND=pure") from error
        _say_pure(absence.warning)
        return _load("pure")


def choose_for_tls(wanted: str | None, kinds: Collection[str], driver: str = "auto") -> Backend:
    """The same for a server that may speak TLS.

    :param kinds: what it speaks it by, ``"TLS"``, ``"context"``, or both; empty: it speaks none.
    :param driver: what is to do the work, one of :data:`DRIVERS`.
    :raises ImportError: as above, or that driver isn't there.
    :raises ValueError: as above, or it can't use a context.
    """
    if driver not in DRIVERS:
        raise ParameterError("tls_driver", f"must be one of {', '.join(map(repr, DRIVERS))}, not {driver!r}")
    backend = choose(wanted)
    there = backend.tls_drivers() if "TLS" in kinds and driver != "ssl" else ()  # it is loaded now, or never
    if not kinds or driver != "libssl":
        return backend
    if "context" in kinds:
        problem = "'libssl' can't use an ssl.SSLContext, which is Python's: give a pysock.TLS, or tls_driver='ssl'"
        raise ParameterError("tls_driver", problem, name="")
    if backend.name != "native":
        raise ImportError("the TLS driver 'libssl' is the native engine's, which isn't used here: choose 'auto'")
    if driver not in there:
        raise ImportError(
            "the TLS driver 'libssl' isn't there: this system has no OpenSSL 3 (libssl.so.3, libcrypto.so.3) that can"
            " be used; the log says why. Install it (Debian, Alpine: libssl3, Fedora: openssl-libs), or choose 'auto'"
        )
    return backend


def tls_driver() -> str:
    """What a server with a :class:`pysock.TLS` speaks it with."""
    return choose().tls_drivers()[0]


class _Absence(NamedTuple):
    """Why there is no native engine here, though nothing is broken."""

    error: str
    warning: str


_NOT_BUILT: Final = _Absence(
    f"the native engine isn't installed: install it again to see why it wasn't built, with {REINSTALL}",
    f"the native one wasn't built; to see why, {REINSTALL}",
)
_NOT_MAIN: Final = _Absence(
    "the native engine runs in the main interpreter only, and this is a sub-interpreter: start the server from there",
    "the native one runs in the main interpreter only, and this is a sub-interpreter; start the server from there",
)


def _absence(error: ImportError) -> _Absence | None:
    if isinstance(error, ModuleNotFoundError) and error.name == "pysock._engine":
        return _NOT_BUILT
    return _NOT_MAIN if isinstance(error, OnlyInMain) or _in_subinterpreter() else None


def _in_subinterpreter() -> bool:
    """Asked only where an import has failed: one with a GIL of its own lets no module in that isn't written for it."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since Python 3.13, and before
        with suppress(ImportError):
            module = importlib.import_module(name)
            return bool(module.get_current() != module.get_main())
    return False


_said_pure = False


def _say_pure(reason: str) -> None:
    """Where the native engine could run, its absence must not pass unseen: ``pip`` hides what a build has to say."""
    global _said_pure  # noqa: PLW0603  # once, however many places ask
    if sys.platform == "linux" and sys.implementation.name == "cpython" and not _said_pure:
        _said_pure = True
        warnings.warn(
            f"pysock runs on its pure-Python engine, because {reason},"
            " or set PYSOCK_BACKEND=pure if that is what you want",
            RuntimeWarning,
            stacklevel=4,
        )


def _load(name: str) -> Backend:
    # In so many words, so that programs which freeze programs see what is imported.
    if name == "native":
        from pysock.engine.native.engine import BACKEND  # noqa: PLC0415  # loaded when it is chosen

        return BACKEND
    from pysock.engine.pure.turn import BACKEND as PURE  # noqa: PLC0415

    return PURE
