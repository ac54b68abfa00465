"""Both ends of TLS, with certificates that are made on the spot by ``trustme`` (the extra ``certificates``).

    python -m pysock.examples.tls

There is an authority, a server whose certificate is from it, and four clients: a worker, who is let in by the name in
its certificate and comes a second time; somebody with a certificate for another name; somebody without one; and a
client that trusts another authority. Then the server's certificate is replaced while it runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pysock
from pysock.examples import _arguments

with _arguments.needs_extra("certificates", __name__):
    import trustme


class Files:
    """Certificates in a directory, each in a file with its key, and that of the authority that they are from."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._authority = trustme.CA()
        self.ca: Path = self._directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str) -> Path:
        """Make one for these names; once more for the same is another one, in the same file."""
        path = self._directory / f"{names[0]}.pem"
        self._authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path


def make_server(addresses: list[str], files: Files) -> pysock.Server:
    """Return the server: it asks for certificates, and lets in workers."""
    tls = pysock.TLS(files.issue("localhost", "127.0.0.1", "::1"), ca=files.ca)
    server = pysock.Server(*addresses, tls=tls, allow={"san": "*.workers.example"})

    @server.service
    def who(client: pysock.DataSocket, _request: bytes) -> bytes:
        """Whom the server takes its client for."""
        return " ".join(client.tls.sans if client.tls else ()).encode()

    return server


def come(address: pysock.Address, who: str, tls: pysock.TLS) -> str:
    """Be one client; the fingerprint of the server's certificate."""
    try:
        with pysock.connect(address, tls=tls) as client:
            assert client.tls is not None
            print(f"{who} speaks {client.tls.version}; to the server it is {client.request(b'').decode()}", flush=True)
            return client.tls.fingerprint
    except (pysock.ConnectionRefused, pysock.TLSError) as error:
        print(f"{who} isn't let in: {str(error).removeprefix(f'{address}: ')}", flush=True)
        return ""


def show(server: pysock.Server, files: Files) -> None:
    """Be all of them."""
    address = server.addresses[0]
    worker = pysock.TLS(files.issue("one.workers.example"), ca=files.ca)
    before = come(address, "a worker", worker)
    come(address, "somebody else", pysock.TLS(files.issue("elsewhere.example"), ca=files.ca))
    come(address, "who has no certificate", pysock.TLS(ca=files.ca))
    with tempfile.TemporaryDirectory() as directory:
        come(address, "who trusts others", pysock.TLS(ca=Files(directory).ca))
    files.issue("localhost", "127.0.0.1", "::1")
    server.reload_tls()
    after = come(address, "a worker", pysock.TLS(worker.cert, ca=files.ca))
    print("the server has another certificate now" if after != before else "nothing has changed", flush=True)


def main() -> None:
    """Serve, and be the clients."""
    parser = _arguments.parser("tls", __doc__, "tls://127.0.0.1:0")
    options = parser.parse_args()
    with _arguments.one_line_errors(), tempfile.TemporaryDirectory() as directory:
        files = Files(directory)
        with make_server(_arguments.addresses(options), files) as server:
            show(server, files)


if __name__ == "__main__":
    main()
