"""A server for a protocol that isn't ours: enough of Redis for ``redis-cli`` and ``redis-benchmark``.

    python -m pysock.examples.redis_server --bind tcp://127.0.0.1:6380 --bind unix:redis.sock
    redis-cli -p 6380 set greeting hello
    redis-benchmark -s redis.sock -t ping,set,get -P 16 -q

Framing ``raw`` hands over whatever bytes have arrived: a part of a command, or many commands (that is pipelining).
The ``hiredis`` parser of each client (the extra ``redis``) lives in the client's own slot, ``client.data``; the
replies to all commands of a chunk are joined and sent as one. The keys and values are lost when the server ends.

A connection that doesn't begin with ``*`` speaks the protocol's inline form, a command a line, as from telnet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pysock
from pysock.examples import _arguments

with _arguments.needs_extra("redis", __name__):
    import hiredis

    from pysock.examples._resp import CommandError, InlineReader, Reply, encode

database: dict[bytes, bytes] = {}


def incr(key: bytes) -> int:
    """INCR: the value is a decimal number of 64 bits, kept as text."""
    value = database.get(key, b"0")
    if not re.fullmatch(rb"0|-?[1-9][0-9]{0,18}", value) or not -(2**63) <= int(value) < 2**63:
        raise CommandError("ERR value is not an integer or out of range")
    if int(value) == 2**63 - 1:
        raise CommandError("ERR increment or decrement would overflow")
    database[key] = b"%d" % (int(value) + 1)
    return int(value) + 1


def set_(key: bytes, value: bytes, *options: bytes) -> str:
    """SET without its options."""
    if options:
        raise CommandError("ERR syntax error")
    database[key] = value
    return "OK"


def config(subcommand: bytes, *names: bytes) -> list[Reply]:
    """CONFIG GET: redis-benchmark wants to know whether data is saved. It isn't."""
    if subcommand.upper() != b"GET":
        raise CommandError(f"ERR unknown subcommand '{subcommand.decode(errors='replace')}'")
    settings = {b"save": b"", b"appendonly": b"no"}
    return [word for name in names if name in settings for word in (name, settings[name])]


#: Name -> (fewest arguments, most arguments, function).
COMMANDS: dict[bytes, tuple[int, float, Callable[..., Reply]]] = {
    b"PING": (0, 1, lambda *message: message[0] if message else "PONG"),
    b"ECHO": (1, 1, lambda message: message),
    b"SET": (2, float("inf"), set_),
    b"GET": (1, 1, database.get),
    b"DEL": (1, float("inf"), lambda *keys: sum(database.pop(key, None) is not None for key in keys)),
    b"EXISTS": (1, float("inf"), lambda *keys: sum(key in database for key in keys)),
    b"INCR": (1, 1, incr),
    b"CONFIG": (1, float("inf"), config),
    b"COMMAND": (0, float("inf"), lambda *_: []),  # redis-cli asks for help texts
}


def run(command: list[bytes]) -> bytes:
    """Run one command and return its reply, encoded."""
    name, *arguments = command
    fewest, most, function = COMMANDS.get(name.upper(), (0, 0, None))
    try:
        if function is None:
            raise CommandError(f"ERR unknown command '{name.decode(errors='replace')}'")
        if not fewest <= len(arguments) <= most:
            raise CommandError(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        return encode(function(*arguments))
    except CommandError as error:
        return b"-%s\r\n" % str(error).replace("\r", " ").replace("\n", " ").encode()


def commands(client: pysock.DataSocket, chunk: bytes) -> Iterator[list[bytes]]:
    """Yield the commands that are whole now that this chunk has arrived."""
    if client.data is None:
        client.data = hiredis.Reader() if chunk.startswith(b"*") else InlineReader()
    client.data.feed(chunk)
    while (command := client.data.gets()) is not False:
        if not isinstance(command, list) or not all(isinstance(word, bytes) for word in command):
            raise hiredis.ProtocolError("a command is an array of bulk strings")
        if command:
            yield command


def replies(client: pysock.DataSocket, chunk: bytes) -> Iterator[bytes]:
    """Yield the replies to those commands. Whoever sends something else is told so, and closed."""
    try:
        for command in commands(client, chunk):
            yield run(command)
    except hiredis.ProtocolError as error:
        yield b"-ERR Protocol error: %s\r\n" % str(error).encode()
        client.close()


def serve_chunk(client: pysock.DataSocket, chunk: bytes) -> bytes | None:
    """The handler: bytes in, the replies to the commands that they complete out."""
    return b"".join(replies(client, chunk)) or None


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    options = _arguments.parser("redis_server", __doc__, "tcp://127.0.0.1:6380").parse_args()
    with _arguments.one_line_errors():
        server = pysock.Server(*_arguments.addresses(options), framing="raw")
        server.service(serve_chunk)
        _arguments.serve(server)


if __name__ == "__main__":
    main()
