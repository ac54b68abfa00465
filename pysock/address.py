"""Addresses: one class, one parser.

This file owns the text forms of an address and what the socket module wants instead of them. It opens no socket.

==================================  ==============================================================
``unix:/run/demo.sock``             a socket file; ``unix:name.sock`` is relative, ``unix:///run/demo.sock`` and
                                    ``ipc:///run/demo.sock`` are the same as the first
``unix:/run/x?mode=0660&group=www`` options of a socket file: ``mode``, ``user``, ``group``, ``backlog``
``unix:``, ``unix:?name=demo``      a socket file in a directory of this user's own, see :attr:`Address.socket_file`
``unix:@name``                      a name in Linux's abstract namespace, without a file and without permissions;
                                    ``unix-abstract:name`` is the same
``tcp://127.0.0.1:9000``            also ``tcp:127.0.0.1:9000``, ``127.0.0.1:9000``, ``[::1]:9000``; with port 0 the
                                    kernel chooses one; ``:9000`` is every IPv4 interface; option ``backlog``
``tls://host:9443``                 the same with TLS; options ``cert``, ``key``, ``ca``, ``verify``, ``name``
``tcp://H:P?proxy=v2&trust=CIDR``   clients come through the proxies of these networks; ``unix:`` takes ``proxy``, too
``fd://3``                          a listening socket that was inherited
``systemd:NAME``, ``systemd:``      those of that name that systemd has passed to this process; all of them
==================================  ==============================================================
"""

from __future__ import annotations

import os
import socket
import sys

from pysock.access.networks import networks_of
from pysock.base.aliases import SocketAddress
from pysock.base.forms import FIELDS, NAMED, OPTIONS, read, write_option
from pysock.base.lean import TYPE_CHECKING, dataclass, field_names, replace
from pysock.errors import ParameterError
from pysock.files.own_directory import own_socket_file

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

#: What is taken as an address: a text, an :class:`Address`, or the path of a socket file.
AddressLike: TypeAlias = "str | os.PathLike[str] | Address"

#: ``sun_path`` has 108 bytes on Linux and 104 on the BSDs and macOS, one of them for the final NUL: man unix(7).
PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103

#: The name of a socket file may have so many bytes where its whole path is too long for ``sun_path``. Linux reaches it
#: as ``/proc/self/fd/1234567/NAME`` then: see files/place.py.
NAME_BYTES_MAX: Final = PATH_BYTES_MAX - len("/proc/self/fd/1234567/")

#: Linux takes no longer paths, with the final NUL: PATH_MAX in limits.h.
_LONGEST_PATH: Final = 4095

#: The transports that have a host and a port.
NETWORK: Final = frozenset(("tcp", "tls"))
#: Those of sockets that somebody else has made: there is only something to listen at.
INHERITED: Final = frozenset(("fd", "systemd"))

#: How the certificate of the other end is looked at.
VERIFY: Final = ("none", "optional", "require")

#: What fields are called that have another name in an address's text.
_NAMES: Final = {"port": "the port", "fd": "the descriptor"}

#: What a field has that isn't set, where that isn't ``None``.
_UNSET: Final[dict[str, object]] = {"path": "", "host": "", "port": 0, "fd": -1}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and a client connects. Usually made by :meth:`parse`.

    ``str(address)`` is the canonical form; parsing that gives an equal address.

    :param transport: ``"unix"``, ``"abstract"``, ``"tcp"``, ``"tls"``, ``"fd"`` or ``"systemd"``.
    :param path: of the socket file, or the abstract name without its ``@``. A socket file may have none: then it is in
        a directory of the user's own, see :attr:`socket_file`.
    :param host: a name or number; empty for every IPv4 interface.
    :param port: 0 to 65535; with 0 the kernel chooses.
    :param fd: the number of an inherited descriptor.
    :param mode: permissions of the socket file, e.g. ``0o660``; by default ``0o600``.
    :param user: who shall own the socket file, by name or number.
    :param group: the group of the socket file, by name or number.
    :param backlog: connections the kernel keeps until they are accepted; by default ``Limits.backlog``.
    :param name: of a socket file without a path, the same for server and client; by default that of the ``Server``, or
        ``"server"``. Of a ``"tls"`` address: the name that the server's certificate must have; by default the host. Of
        a ``"systemd"`` address: ``FileDescriptorName=`` of the .socket unit; by default any.
    :param cert: of a ``"tls"`` address, as ``key``, ``ca`` and ``verify``: what :class:`pysock.TLS` takes.
    :param proxy: clients come there through a proxy, which says first for whom it connects, by a header of the PROXY
        protocol: ``"v2"`` or ``"v1"``, the version of it, or ``"any"``. Without one nobody comes in.
    :param trust: over TCP, with ``proxy``, where such proxies are: their addresses or networks, with commas between,
        ``"10.0.0.0/8,127.0.0.1"`` for example. Over a Unix socket the server's ``allow=`` says who may connect.
    :raises ValueError: for anything that can't be an address, saying what is wrong.
    """

    transport: str
    path: str = ""
    host: str = ""
    port: int = 0
    fd: int = -1
    mode: int | None = None
    user: str | None = None
    group: str | None = None
    backlog: int | None = None
    name: str | None = None
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    verify: str | None = None
    proxy: str | None = None
    trust: str | None = None

    def __post_init__(self) -> None:
        allowed = FIELDS.get(self.transport)
        if allowed is None:
            advice = f", or write Address.parse({self.transport!r})" if _is_text(self.transport) else ""
            problem = f"unknown transport {self.transport!r}: choose one of {', '.join(FIELDS)}{advice}"
            raise ParameterError("transport", problem, name="")
        for name in field_names(self)[1:]:
            if name not in allowed and getattr(self, name) != _UNSET.get(name):
                problem = f"doesn't go with the transport {self.transport!r}{_takes(allowed)}"
                raise ParameterError(name, problem, name=repr(name))
        if self.transport == "unix":
            _check_socket_file(self.path, self.name)
        elif self.transport == "abstract":
            _check_path("abstract name", self.path, "unix:@demo")
        elif self.transport in NETWORK:
            _check_host(self.host, self.transport)
            _check_range("port", self.port, 0, 65535, f"{self.transport}://127.0.0.1:9000")
            _check_tls(self)
        elif self.transport == "systemd":
            _check_passed(self.name)
        else:
            _check_range("fd", self.fd, 0, 2**31 - 1, "fd://3")
        _check_options(self)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address written as ``text``; the forms are at the top of this module.

        A path is percent-decoded, so that one with a ``?`` in it can be written: as ``%3F``.

        :raises ValueError: saying what is wrong, with an example of what is right.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"an address is a str, an os.PathLike or an Address, not {type(text).__name__}; write for example"
                " unix:/run/demo.sock or tcp://127.0.0.1:9000"
            )
        try:
            return cls(**read(text))
        except ValueError as error:
            raise ParameterError("address", f"bad address {text!r}: {error}", name="") from None

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __str__(self) -> str:
        if self.transport == NAMED:
            return self.bare()
        options = "&".join(write_option(name, getattr(self, name)) for name in OPTIONS if _is_set(self, name))
        return self.bare() + ("?" + options if options else "")

    def bare(self) -> str:
        """The canonical form without the options."""
        if self.transport == "fd":
            return f"fd://{self.fd}"
        if self.transport == "systemd":
            return f"systemd:{self.name or ''}"
        if self.transport in NETWORK:
            return f"{self.transport}://{join_host_port(self.host, self.port)}"
        path = self.path.replace("%", "%25").replace("?", "%3F")
        if self.transport == "abstract":
            return f"unix:@{path}"
        if path.startswith("@"):
            return f"unix:%40{path[1:]}"
        return f"unix://{path}" if path.startswith("//") else f"unix:{path}"

    @property
    def socket_file(self) -> str:
        """The path of the socket file of a ``"unix"`` address.

        Without a path of its own it is ``$XDG_RUNTIME_DIR/pysock/NAME.sock`` (XDG Base Directory Specification), or
        ``/tmp/pysock-UID/NAME.sock`` where that variable isn't set, or names a directory of another user. A server
        makes the directory when it starts.
        """
        assert self.transport == "unix"
        return self.path or own_socket_file(self.name)

    def named(self, name: str | None) -> Address:
        """Return this address, with a name if it wants one and has none; any other address as it is.

        :raises ValueError: that can't be the name of a file.
        """
        if self.transport != "unix" or self.path or self.name or not name:
            return self
        return replace(self, name=name)

    def resolve(self, *, listening: bool) -> list[SocketAddress]:
        """Return ``(family, address)`` pairs as the socket module takes them: what to bind, or to connect to in turn.

        To listen, IPv4 comes first where a name has both, and the empty host is ``0.0.0.0``; ``[::]`` listens on
        both on most systems. A path may be too long for the kernel: :func:`pysock.files.place.reachable` and
        :class:`pysock.files.place.Place` know the way around.

        :raises OSError: the host's name can't be resolved.
        :raises ValueError: there is nothing to connect to: port 0, or a descriptor.
        """
        if self.transport == "unix":
            return [(socket.AF_UNIX, self.socket_file)]
        if self.transport == "abstract":
            return [(socket.AF_UNIX, "\0" + self.path)]
        if not listening and (self.transport in INHERITED or self.port == 0):
            raise ParameterError("address", f"can't connect to {self}: that is only something to listen at", name="")
        assert self.transport in NETWORK
        found = _look_up(self, socket.AI_PASSIVE if listening else 0)
        if listening:
            found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        return found


def as_address(value: AddressLike) -> Address:
    """Return ``value`` itself, what it says if it is a text, or the socket file that it is the path of."""
    if isinstance(value, Address):
        return value
    if isinstance(value, os.PathLike):
        return Address("unix", os.fsdecode(value))
    return Address.parse(value)


def join_host_port(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _look_up(address: Address, flags: int) -> list[SocketAddress]:
    try:
        rows = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        text = f"{address}: the host {address.host!r} can't be resolved ({error.strerror}); check its spelling"
        raise socket.gaierror(error.errno, text) from None
    except UnicodeError as error:
        raise ParameterError(
            "host", f"{address}: {address.host!r} isn't the name of a host: {error}", name=""
        ) from None
    return [(int(row[0]), row[4]) for row in rows]


# Checking


def _is_text(transport: Any) -> bool:
    """Whether it isn't a transport but a whole address."""
    return isinstance(transport, str) and ":" in transport


def _takes(names: tuple[str, ...]) -> str:
    return f"; this one takes {', '.join(names)}"


def _check_socket_file(path: str, name: str | None) -> None:
    if path:
        _check_path("path", path, "unix:/run/demo.sock")
        if path.rpartition("/")[2] in {"", ".", ".."}:
            problem = f"the path {path!r} is that of a directory; write the name of a socket file, too, for example"
            raise ParameterError("path", f"{problem} unix:/run/demo.sock", name="")
    if name is not None:
        if path:
            problem = "goes with a socket file that has no path; write for example unix:?name=demo"
            raise ParameterError("name", problem, name="'name'")
        # It becomes part of a path: no slash, no dot in front, nothing that is written in another way.
        if not isinstance(name, str) or not _can_name_a_file(name):
            problem = f"{name!r} can't name a socket file: take up to 64 of A-Z a-z 0-9 . _ -, as in unix:?name=demo,"
            raise ParameterError("name", f"{problem} or write a path", name="")


def _check_passed(name: str | None) -> None:
    """As sd_listen_fds(3) has it: LISTEN_FDNAMES is a list with colons between."""
    if name is None:
        return
    if not isinstance(name, str) or not 0 < len(name) <= 255 or not (name.isascii() and name.isprintable()):
        raise ParameterError("name", f"must be up to 255 signs of ASCII, not {name!r}; write for example systemd:api")
    if ":" in name or "?" in name:
        raise ParameterError("name", f"{name!r}: no such name has a {':' if ':' in name else '?'!r}", name="")


def _can_name_a_file(name: str) -> bool:
    letters = name.translate({ord(sign): "_" for sign in ".-"})
    return name.isascii() and len(name) <= 64 and letters.replace("_", "a").isalnum() and name[0] not in ".-"


def _can_name_somebody(name: str) -> bool:
    return bool(name) and not any(char.isspace() or char in ":/&=?%#" for char in name)


def _check_path(what: str, path: str, example: str) -> None:
    if not path:
        raise ParameterError("path", f"is empty; write for example {example}", name=f"the {what}")
    if "\0" in path:
        never = "no path can have" if what == "path" else "pysock doesn't take"
        problem = f"{path!r} has a NUL in it, which {never}; leave it out (it may be written as %00)"
        raise ParameterError("path", problem, name=f"the {what}")
    try:
        encoded = os.fsencode(path)
    except UnicodeError as error:
        raise ParameterError("path", f"{path!r} can't be encoded: {error}", name=f"the {what}") from None
    problem = _too_long(encoded, has_directory=what == "path")
    if problem:
        problem = f"{path!r} has {len(encoded)} bytes{problem}, for example {example}"
        raise ParameterError("path", problem, name=f"the {what}")


def _too_long(path: bytes, *, has_directory: bool) -> str:
    """What is wrong with the length of a path, as the middle of a sentence."""
    if len(path) <= PATH_BYTES_MAX:
        return ""
    if not has_directory or sys.platform != "linux":
        return f", but a Unix socket takes at most {PATH_BYTES_MAX} (sun_path, see man unix(7)); choose a shorter one"
    if len(path) > _LONGEST_PATH:
        return f", but Linux takes at most {_LONGEST_PATH} (PATH_MAX); choose a shorter one"
    name = len(os.path.basename(path))
    if name > NAME_BYTES_MAX:
        return (
            f", {name} of them in the file's name; with more than {PATH_BYTES_MAX} (sun_path, see man unix(7)) that may"
            f" have at most {NAME_BYTES_MAX}; choose a shorter one"
        )
    return ""


def _check_host(host: str, scheme: str) -> None:
    if any(char.isspace() or not char.isprintable() or char in "/?#@[]" for char in host):
        problem = f"{host!r} isn't a host; write for example {scheme}://127.0.0.1:9000 or {scheme}://[::1]:9000"
        raise ParameterError("host", problem, name="")


def _check_tls(address: Address) -> None:
    for name in ("cert", "key", "ca"):
        value = getattr(address, name)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            raise ParameterError(
                name, f"must be the path of a file, not {value!r}; write for example {name}=/etc/x.pem"
            )
    if address.verify is not None and address.verify not in VERIFY:
        raise ParameterError("verify", f"must be one of {', '.join(VERIFY)}, not {address.verify!r}")
    host = address.name
    if host is not None and (not isinstance(host, str) or not host or any(map(str.isspace, host)) or "&" in host):
        raise ParameterError("name", f"must be the name of a host, not {host!r}; write for example name=db.example")


def _check_range(name: str, value: int, least: int, most: int, example: str) -> None:
    if type(value) is not int or not least <= value <= most:
        problem = f"must be a number from {least} to {most}, not {value!r}; write for example {example}"
        raise ParameterError(name, problem, name=_NAMES.get(name))


def _check_mode(mode: int) -> None:
    if type(mode) is not int or not 0 <= mode <= 0o777:
        shown = oct(mode) if type(mode) is int else repr(mode)
        raise ParameterError("mode", f"must be a number from 0 to 0o777, not {shown}; write for example mode=0o660")


def _check_options(address: Address) -> None:
    if address.mode is not None:
        _check_mode(address.mode)
    if address.backlog is not None:
        _check_range("backlog", address.backlog, 1, 2**31 - 1, "backlog=4096")
    _check_proxy(address)
    for name in ("user", "group"):
        value = getattr(address, name)
        if value is not None and (not isinstance(value, str) or not _can_name_somebody(value)):
            problem = f"must be a name or a number, not {value!r}; write for example {name}=www-data"
            raise ParameterError(name, problem)


def _check_proxy(address: Address) -> None:
    proxy, trust = address.proxy, address.trust
    if proxy is not None and proxy not in {"v1", "v2", "any"}:
        raise ParameterError("proxy", f"must be v1, v2 or any, not {proxy!r}; write for example proxy=v2")
    if proxy is not None and trust is None and address.transport in NETWORK:
        problem = "is missing: over TCP anybody could say that he is a proxy; name those that are, for example"
        raise ParameterError("trust", f"{problem} proxy={proxy}&trust=10.0.0.0/8,127.0.0.1")
    if trust is not None and proxy is None:
        raise ParameterError("trust", f"goes with proxy=; write for example proxy=v2&trust={trust}")
    if trust is not None:
        try:
            networks_of(trust)
        except (ValueError, AttributeError, TypeError) as error:
            problem = f"must be addresses or networks, with commas between: {error}; write for example"
            raise ParameterError("trust", f"{problem} trust=10.0.0.0/8,127.0.0.1") from None


def _is_set(address: Address, name: str) -> bool:
    return getattr(address, name) is not None
