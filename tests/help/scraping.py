"""What Prometheus does: a request by HTTP to any address of ours, and the samples in the answer."""

from __future__ import annotations

import http.client
from contextlib import closing

from support import plug


class Unix(http.client.HTTPConnection):
    """By any address of ours."""

    def __init__(self, address) -> None:
        super().__init__("localhost")
        self._address = address

    def connect(self) -> None:
        self.sock = plug(self._address)


def ask(address, path="/metrics", method="GET", **headers):
    """-> status, body, headers."""
    with closing(Unix(address)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1"), answer.headers


def samples(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
