"""Certificates and keys in files, looked at before anybody connects: whatever is wrong with one is told in words."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError
from pysock.tls.validity import times_of

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    #: What opens a key: its passphrase, or a function that returns it.
    Password: TypeAlias = str | bytes | Callable[[], str | bytes]

_MISMATCH: Final = "KEY_VALUES_MISMATCH"
_NO_PAIR: Final = "holds no certificate and key in PEM form"


class _Wanted(Exception):
    """The key is encrypted, and there is no passphrase."""


def checked_path(parameter: str, value: Any) -> str | None:
    """Return the path as text.

    :raises TypeError: it isn't one.
    :raises ValueError: it isn't that of a file that can be read.
    """
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise TypeError(f"{parameter}= takes the path of a file, not {value!r}")
    path = os.fsdecode(value)
    _text_of(parameter, path)
    return path


def _text_of(parameter: str, path: str) -> str:
    try:
        with open(path, encoding="latin-1") as file:
            return file.read()
    except IsADirectoryError:
        problem = f"{path!r} is a directory; name the file in it"
    except FileNotFoundError:
        problem = f"{path!r} isn't there; is the path right?"
    except PermissionError:
        problem = f"{path!r} can't be read by this process; look at its permissions, and at those of its directory"
    except (OSError, ValueError) as error:
        problem = f"{path!r} can't be read: {error}"
    raise ParameterError(parameter, problem)


def load_pair(context: ssl.SSLContext, cert: str, key: str | None, password: Password | None) -> None:
    """Have the context use this certificate, with what follows it in its file, and its key.

    :param key: by default it is in the certificate's file.
    :raises ValueError: it can't be used; the message says why, and what to do.
    """
    _refuse_expired(cert, _text_of("cert", cert))
    if key is not None:
        _text_of("key", key)
    try:
        context.load_cert_chain(cert, key, _asking(password))
    except _Wanted:
        problem = f"{key or cert!r} is encrypted: give its passphrase, as password="
        raise ParameterError("password", problem, name="") from None
    except ssl.SSLError as error:
        raise _explained(error, cert, key, password) from None


def _asking(password: Password | None) -> Password:
    """Without this OpenSSL would ask at the terminal."""
    if password is not None:
        return password

    def ask() -> str:
        raise _Wanted

    return ask


def _explained(error: ssl.SSLError, cert: str, key: str | None, password: Password | None) -> ParameterError:
    if error.reason == _MISMATCH:
        problem = f"{key or cert!r} isn't the key of the certificate in {cert!r}; which of the two is the old one?"
        return ParameterError("key", problem)
    if times_of(_text_of("cert", cert)) is None:
        problem = f"{cert!r} holds no certificate in PEM form; it begins with -----BEGIN CERTIFICATE-----"
        return ParameterError("cert", problem)
    text = _text_of("key", key or cert)
    if "PRIVATE KEY-----" not in text:
        if key is None:
            return ParameterError("key", f"is missing: {cert!r} holds the certificate alone", name="key=")
        return ParameterError("key", f"{key!r} holds no key in PEM form; it begins with -----BEGIN PRIVATE KEY-----")
    if password is not None and "ENCRYPTED" in text:
        return ParameterError("password", f"isn't the passphrase of {key or cert!r}", name="password=")
    return ParameterError("cert", f"{cert!r} with the key in {key or cert!r} can't be used: {error}")


def _refuse_expired(path: str, text: str) -> None:
    times = times_of(text)
    if times is None:
        return
    now = time.time()
    if now > times[1]:
        raise ParameterError("cert", f"{path!r} has expired, {_day(times[1])}: renew it")
    if now < times[0]:
        raise ParameterError("cert", f"{path!r} isn't good before {_day(times[0])}: is this machine's clock right?")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def load_authorities(context: ssl.SSLContext, ca: str) -> None:
    """Have the context trust these certificates.

    :raises ValueError: there are none in the file.
    """
    _text_of("ca", ca)
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        problem = f"{ca!r} holds no certificates in PEM form ({getattr(error, 'reason', None) or error})"
        raise ParameterError("ca", problem) from None
