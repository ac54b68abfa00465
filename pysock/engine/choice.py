"""The one decision which engine runs, and in so many words why the other one doesn't."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Collection
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.engine.contract import REINSTALL, Backend, OnlyInMain
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

#: The values of ``PYSOCK_BACKEND`` and of ``Server(backend=...)``.
CHOICES: Final = ("auto", "native", "pure")


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


def choose_for_tls(wanted: str | None, kinds: Collection[str]) -> Backend:
    """The same for a server that speaks TLS, of these kinds: ``"TLS"``, ``"context"``, or both.

    With ``auto`` it is the pure engine where the other one can't speak it.

    :raises ImportError: as above, or it can't, and was asked for.
    """
    backend = choose(wanted)
    drivers = backend.tls_drivers()
    if not kinds or "ssl" in drivers or (drivers and "context" not in kinds):
        return backend
    if wanted == "native":
        what = "an ssl.SSLContext" if drivers else "TLS"
        raise ImportError(f"the native engine can't speak {what} here: use backend='auto', or 'pure'")
    return choose("pure")


def tls_driver() -> str:
    """What a server with a :class:`pysock.TLS` speaks it with."""
    return choose_for_tls(None, ("TLS",)).tls_drivers()[0]


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
