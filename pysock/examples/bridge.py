"""A server in an asyncio program, whose handler awaits another server: what comes in here is answered there.

    python -m pysock.examples.upper --bind tcp://127.0.0.1:7000
    python -m pysock.examples.bridge --bind unix:bridge.sock --connect tcp://127.0.0.1:7000
    pysock call unix:bridge.sock "hello"

All clients share one connection to the other side, with any number of requests on it. A client that cancels its
request, or leaves, cancels it there as well. The other tasks of the program go on meanwhile: here one that counts.
"""

from __future__ import annotations

import asyncio
import signal

import pysock
import pysock.aio
from pysock.examples import _arguments


def make_server(addresses: list[str], other: pysock.aio.AsyncClient) -> pysock.Server:
    """A server that has every request answered by the other one, whose errors are its own."""
    server = pysock.Server(*addresses)

    @server.service
    async def pass_on(client: pysock.DataSocket, request: bytes) -> bytes:
        return await other.request(request)

    return server


async def count(server: pysock.Server, seconds: float) -> None:
    """Say now and then how many requests there were."""
    said = 0
    while True:
        await asyncio.sleep(seconds)
        requests = server.stats()["requests"]
        if requests != said:
            print(f"{requests} requests", flush=True)
            said = requests


async def bridge(addresses: list[str], where: str, seconds: float) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    async with pysock.aio.connect(where) as other:
        server = make_server(addresses, other)
        async with server:
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, server.stop)
            counting = asyncio.create_task(count(server, seconds))
            print("serving on", *server.addresses, flush=True)
            await server.wait_closed()
            counting.cancel()


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = _arguments.parser("bridge", __doc__, "unix:bridge.sock")
    parser.add_argument("--connect", metavar="ADDR", default="unix:upper.sock", help="the server that answers")
    parser.add_argument("--every", metavar="SECONDS", type=float, default=10.0, help="how often the requests are told")
    options = parser.parse_args()
    with _arguments.one_line_errors():
        asyncio.run(bridge(_arguments.addresses(options), options.connect, options.every))


if __name__ == "__main__":
    main()
