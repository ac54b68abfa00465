"""TLS in the native engine: which driver does the work; and OpenSSL as the system has it, by ``csrc/transport/``: what
that is told, and tells. The other driver is ``hosted.py``.
"""

from __future__ import annotations

import os
import socket
import time
from functools import cache
from weakref import WeakKeyDictionary

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.engine.native.crossing import ffi, lib, result_of
from pysock.tls.info import TLSInfo, sans_of, subject_of
from pysock.tls.tickets import PERIOD, given

if TYPE_CHECKING:
    from typing import Any, Final

#: The libraries, as the loader knows them; OpenSSL 3 keeps these names.
LIBSSL: Final = b"libssl.so.3"
LIBCRYPTO: Final = b"libcrypto.so.3"
_TEXT_ROOM: Final = 256
_IPV4_SIZE: Final = 4
_FACTS_ROOM: Final = 4096
_MINIMUM: Final = {"1.2": 0x0303, "1.3": 0x0304}
_VERIFY: Final = {"none": lib.PS_VERIFY_NONE, "optional": lib.PS_VERIFY_OPTIONAL, "require": lib.PS_VERIFY_REQUIRE}
#: By what the sessions of each TLS are sealed; or those of all, where this process was given the keys.
_tickets: Final[WeakKeyDictionary[Any, Any]] = WeakKeyDictionary()
_of_all: Final[list[Any]] = []
#: What OpenSSL calls the kinds of alternative names.
_SANS: Final = {lib.PS_FACT_DNS: "DNS", lib.PS_FACT_URI: "URI", lib.PS_FACT_EMAIL: "email"}


@cache
def drivers() -> tuple[str, ...]:
    """What can speak TLS here, the best first. Where OpenSSL isn't there, why is logged, once."""
    why = ffi.new("char[]", _TEXT_ROOM)
    if lib.ps_libssl_load(LIBSSL, LIBCRYPTO, why, _TEXT_ROOM) == 0:
        return ("libssl", "ssl")
    said = ffi.string(why).decode("utf-8", "replace")
    log.info("TLS goes by Python's module ssl, for the system's OpenSSL 3 isn't there (%s)", said)
    return ("ssl",)


def driver_of(tls: Any, wanted: str) -> str:
    """What speaks it: a context of the module ssl only that module can use.

    :param wanted: as ``EngineOptions.tls_driver``.
    """
    if wanted == "ssl" or hasattr(tls, "wrap_bio"):
        return "ssl"
    return drivers()[0]


def secure(engine: Any, master: int, tls: Any) -> None:
    """Have the clients of this master socket speak this :class:`pysock.TLS`, as its files are now.

    :raises OSError: they can't be used; nothing has changed.
    """
    kept: list[Any] = []

    def text(value: str | bytes | None) -> Any:
        if value is None:
            return ffi.NULL
        kept.append(ffi.new("char[]", os.fsencode(value)))
        return kept[-1]

    password = tls.password() if callable(tls.password) else tls.password
    alpn = b"".join(bytes((len(name),)) + name.encode("ascii") for name in tls.alpn)
    options = ffi.new("ps_tls_options *")
    options.cert, options.key, options.ca_file = text(tls.cert), text(tls.key), text(tls.ca)
    options.password = text(password)
    kept.append(ffi.from_buffer("uint8_t[]", alpn))
    options.alpn, options.alpn_size = kept[-1], len(alpn)
    options.tickets = _tickets_of(tls)
    options.minimum, options.verify = _MINIMUM[tls.minimum], _VERIFY[tls.asks]
    why = ffi.new("char[]", _TEXT_ROOM)
    error = lib.ps_engine_secure(engine, master, options, why, _TEXT_ROOM)
    if error < 0:
        raise OSError(-error, f"TLS: {tls.cert}: {ffi.string(why).decode('utf-8', 'replace')}")


def _tickets_of(tls: Any) -> Any:
    """By what its sessions are sealed: the same for all servers that speak it, and whatever its files are by now."""
    if (keys := given.hand_over()) is not None:
        _of_all.append(_made(*keys))
    if _of_all:
        return _of_all[0]
    if tls not in _tickets:
        _tickets.setdefault(tls, _made(os.urandom(lib.PS_TICKET_KEYS), time.monotonic_ns() // PERIOD))
    return _tickets[tls]


def _made(keys: bytes, period: int) -> Any:
    made = lib.ps_tickets_new(keys, PERIOD, period)
    if not made:
        raise MemoryError
    return ffi.gc(made, lib.ps_tickets_drop)


def facts_of(engine: Any, client_id: int) -> bytes:
    """What is known of a client, packed; nothing, where it speaks no TLS, or not yet."""
    room = _FACTS_ROOM
    while True:
        facts = ffi.new("uint8_t[]", room)
        size = result_of(lib.ps_engine_facts(engine, client_id, facts, room))
        if size <= room:
            return bytes(ffi.buffer(facts, size))
        room = size


def info_of(facts: bytes) -> TLSInfo | None:
    """The same, taken apart."""
    if not facts:
        return None
    found: dict[int, bytes] = {}
    subject: list[tuple[str, str]] = []
    sans: list[tuple[str, str]] = []
    for kind, value in _taken_apart(facts):
        if kind == lib.PS_FACT_SUBJECT:
            subject.append((found[lib.PS_FACT_SUBJECT_KEY].decode(), value.decode()))
        elif kind == lib.PS_FACT_IP:
            sans.append(("IP Address", _written(value)))
        elif kind in _SANS:
            sans.append((_SANS[kind], value.decode()))
        else:
            found[kind] = value
    alpn = found.get(lib.PS_FACT_ALPN)
    return TLSInfo(
        version=found.get(lib.PS_FACT_VERSION, b"").decode(),
        cipher=found.get(lib.PS_FACT_CIPHER, b"").decode(),
        alpn=None if alpn is None else alpn.decode("ascii", "replace"),
        sni=found.get(lib.PS_FACT_SNI, b"").decode("utf-8", "replace"),
        subject=subject_of([(pair,) for pair in subject]),
        sans=sans_of(sans),
        fingerprint=found.get(lib.PS_FACT_FINGERPRINT, b"").hex(),
        driver="libssl",
        resumed=lib.PS_FACT_RESUMED in found,
    )


def _taken_apart(facts: bytes) -> list[tuple[int, bytes]]:
    """Each fact: its kind, and its bytes."""
    found, at = [], 0
    while at < len(facts):
        end = at + 3 + int.from_bytes(facts[at + 1 : at + 3], "big")
        found.append((facts[at], facts[at + 3 : end]))
        at = end
    return found


def _written(address: bytes) -> str:
    """As the module ssl writes it: IPv6 in groups without zeros in front, and none left out."""
    if len(address) == _IPV4_SIZE:
        return socket.inet_ntop(socket.AF_INET, address)
    return ":".join(f"{int.from_bytes(address[at : at + 2], 'big'):X}" for at in range(0, len(address), 2))


def why_not_greeted(engine: Any) -> str | None:
    """Why the last handshake failed; ``None``: the session knows it, see ``hosted.py``."""
    from pysock.tls.words import in_words  # noqa: PLC0415  # it brings the module ssl

    failed = ffi.new("ps_handshake *")
    lib.ps_engine_handshake(engine, failed)
    if failed.hosted:
        return None
    reason, verified = (
        ffi.string(text).decode("utf-8", "replace") if text else "" for text in (failed.reason, failed.verified)
    )
    return in_words(reason, failed.verify_code, verified)
