"""The forms in which addresses are written, read into fields; :class:`pysock.Address` says what each means."""

from __future__ import annotations

import os
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Final

FORMS: Final = "unix:/run/demo.sock, unix:@name, tcp://127.0.0.1:9000, tls://127.0.0.1:9443, fd://3 or systemd:name"

#: Which fields an address may have set, and the options among them that can be written after a "?".
FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "unix": ("path", "name", "mode", "user", "group", "backlog", "proxy"),
    "abstract": ("path", "backlog", "proxy"),
    "tcp": ("host", "port", "backlog", "proxy", "trust"),
    "tls": ("host", "port", "cert", "key", "ca", "verify", "name", "backlog", "proxy", "trust"),
    "fd": ("fd",),
    "systemd": ("name",),
}
OPTIONS: Final = ("name", "mode", "user", "group", "cert", "key", "ca", "verify", "backlog", "proxy", "trust")
#: Of which a field that is an option elsewhere is what the address names.
NAMED: Final = "systemd"
#: Of the options, those in which any sign may be written as %XX: the paths of files.
_PATHS: Final = ("cert", "key", "ca")
_ESCAPED: Final = {ord(sign): f"%{ord(sign):02X}" for sign in "%&"}


def read(text: str) -> dict[str, Any]:
    """Return the fields of the address that is written so.

    :raises ValueError: it can't be read; the message says what to write.
    """
    scheme, colon, rest = text.partition(":")
    reader = _READERS.get(scheme.lower()) if colon else None
    if reader is None:
        if "://" in text:
            raise ValueError(f"unknown scheme {text.partition('://')[0]!r}; write {FORMS}")
        _refuse_bare_path(text)
        reader, rest = _read_tcp, text
    rest, mark, query = rest.partition("?")
    found = reader(rest)
    if mark:
        found |= _read_options(query, found["transport"])
    return found


def separated(text: str) -> list[str]:
    """Return the addresses in a text with commas between them.

    A comma that no address follows belongs to the path before it; one that would be misunderstood is written as %2C.
    """
    found: list[str] = []
    for part in text.split(","):
        if found and not _begins_an_address(part.strip()):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return [part.strip() for part in found] if len(found) > 1 else [text]


def _begins_an_address(text: str) -> bool:
    scheme, colon, rest = text.partition(":")
    if not colon:
        return False
    port = rest.rpartition(":")[2].partition("?")[0]
    return scheme.lower() in _READERS or ("/" not in text and port.isdigit())


def _refuse_bare_path(text: str) -> None:
    """Raise for what is no address of TCP, but the path of a socket file or an abstract name."""
    path = text.partition("?")[0]
    if path.startswith("@") or "/" in path or path.endswith((".sock", ".socket")):
        raise ValueError(f"did you mean unix:{os.path.expanduser(text)}?")


def _read_unix(rest: str) -> dict[str, Any]:
    path = rest.removeprefix("//")
    if path.startswith("@"):
        return _read_abstract(path[1:])
    return {"transport": "unix", "path": _decode(path)}


def _read_abstract(rest: str) -> dict[str, Any]:
    return {"transport": "abstract", "path": _decode(rest)}


def _read_tcp(rest: str) -> dict[str, Any]:
    return {"transport": "tcp"} | _read_host_port(rest, "tcp")


def _read_tls(rest: str) -> dict[str, Any]:
    return {"transport": "tls"} | _read_host_port(rest, "tls")


def _read_host_port(rest: str, scheme: str) -> dict[str, Any]:
    rest = rest.removeprefix("//")
    host, colon, port = rest.rpartition(":")
    if not colon or "]" in port:
        raise ValueError(f"there is no port; write {FORMS}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{host!r} isn't an IPv6 address; only those go in brackets, as in {scheme}://[::1]:9000")
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes in brackets; write for example {scheme}://[::1]:9000")
    return {"host": host, "port": _number(port, "the port", f"{scheme}://127.0.0.1:9000")}


def _read_fd(rest: str) -> dict[str, Any]:
    return {"transport": "fd", "fd": _number(rest.removeprefix("//"), "the descriptor", "fd://3")}


def _read_systemd(rest: str) -> dict[str, Any]:
    return {"transport": "systemd", "name": rest.removeprefix("//") or None}


_READERS: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "unix": _read_unix,
    "ipc": _read_unix,
    "unix-abstract": _read_abstract,
    "tcp": _read_tcp,
    "tls": _read_tls,
    "fd": _read_fd,
    "systemd": _read_systemd,
}


def _read_options(query: str, transport: str) -> dict[str, Any]:
    allowed = [name for name in FIELDS[transport] if name in OPTIONS and transport != NAMED]
    options: dict[str, Any] = {}
    known = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
    for number, part in enumerate(query.split("&")):
        if not part:
            decoded = ", and %3F is a '?' in a path" if transport == "unix" else ""
            raise ValueError(f"there is no option after the {'&' if number else '?'!r}; {known}{decoded}")
        name, equals, value = part.partition("=")
        if name not in allowed:
            raise ValueError(f"unknown option {name!r} for the transport {transport!r}; {known}")
        if not equals or not value:
            raise ValueError(f"the option {name!r} has no value; write {name}=VALUE")
        if name in options:
            raise ValueError(f"the option {name!r} is given twice")
        options[name] = _read_option(name, value)
    return options


def _read_option(name: str, value: str) -> Any:
    if name == "mode":
        digits = value.removeprefix("0o")
        if not (len(digits) == 3 or (len(digits) == 4 and digits[0] == "0")) or digits.strip("01234567"):
            raise ValueError(
                f"mode must be an octal number from 000 to 0777, not {value!r}; write for example mode=0660"
            )
        return int(value, 8)
    if name == "backlog":
        return _number(value, "backlog", "backlog=4096")
    return _decode(value) if name in _PATHS else value


def write_option(name: str, value: Any) -> str:
    """Return the option as it is written after a "?"."""
    if name in _PATHS:
        value = value.translate(_ESCAPED)
    return f"mode={value:04o}" if name == "mode" else f"{name}={value}"


def _number(text: str, what: str, example: str) -> int:
    # int() alone would take "+5", "5_0", " 5" and the digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError(f"{what} must be a number, not {text!r}; write for example {example}")
    return int(text)


def _decode(path: str) -> str:
    if "%" not in path:
        return path
    from urllib.parse import unquote  # noqa: PLC0415  # takes a while to import, and few need it

    return unquote(path, errors="surrogateescape")


def from_the_root(path: str) -> str:
    """The absolute path. A ``..`` in it stays: where that leads behind a symbolic link only the system knows."""
    if not os.path.isabs(path):
        path = os.path.join(os.getcwd(), path)
    return "/" + "/".join(part for part in path.split("/") if part not in {"", "."})
