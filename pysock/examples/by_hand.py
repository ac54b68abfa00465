"""The model by hand, without a server's loop: one master socket, one client, one system call a line.

The master socket is the server's connection socket. It only accepts. Everything the client says and hears flows
through the data socket that ``accept`` returned. The right-hand column is what ``strace`` shows:

    strace -e trace=%network,read,write,close,unlink python -m pysock.examples.by_hand --bind unix:by_hand.sock
    echo hello | socat - UNIX-CONNECT:by_hand.sock

It serves one client and ends. There is no framing here: ``recv`` returns whatever bytes have arrived.
"""

from __future__ import annotations

import pysock
from pysock.examples import _arguments


def serve_one(address: str) -> None:
    """Walk through the life of a master socket and of one data socket."""
    with pysock.MasterSocket(address) as master:  # so that it is closed whatever happens
        master.remove_stale()  # unlink(), if nobody listens at that socket file any more
        master.create()  # socket()
        master.bind()  # bind(): now the socket file exists
        master.listen()  # listen(): now clients can connect
        print("waiting for one client at", master.address, flush=True)

        with master.accept() as data:  # accept4(): waits for a client
            request = data.recv()  # recvfrom() on the data socket, never on the master
            data.send(request.upper())  # sendto()
            data.close()  # close() of the data socket
        master.close()  # close() of the master socket, then unlink() of the socket file


def main() -> None:
    """Serve one client at each address, one after the other."""
    options = _arguments.parser("by_hand", __doc__, "unix:by_hand.sock").parse_args()
    with _arguments.one_line_errors():
        for address in _arguments.addresses(options):
            serve_one(address)


if __name__ == "__main__":
    main()
