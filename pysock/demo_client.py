"""One client process of ``pysock demo``: ``python -m pysock.demo_client ADDRESS NAME SERVICE one-by-one|pipelined``.

It connects, waits until the server says that everybody is there, sends each line of its standard input as a request,
reports the sum of the replies, and stays connected until the server drains.
"""

from __future__ import annotations

import json
import math
import sys

import pysock
from pysock.clock import monotonic

ONE_BY_ONE = "one by one"
PIPELINED = "pipelined"

#: How long the others may take to connect, or a request to be answered.
PATIENCE = 30.0


def work(address: str, name: str, service: str, manner: str) -> None:
    """Be one client, from the connection initiation request to the server's goodbye."""
    lines = sys.stdin.buffer.read().split(b"\n")[:-1]  # the parent ends every line with a newline
    with pysock.connect(address, name=name) as client:
        if next(client.pushes(timeout=PATIENCE), None) is None:
            raise TimeoutError("the server never said that everybody is there")
        started = monotonic()
        if manner == PIPELINED:
            replies = client.request_many(lines, service=service, timeout=math.inf)
        else:
            replies = [client.request(line, service=service, timeout=PATIENCE) for line in lines]
        ended = monotonic()
        report = {"lines": len(replies), "words": sum(map(int, replies)), "started": started, "ended": ended}
        client.request(json.dumps(report).encode(), service="report", timeout=PATIENCE)
        for _ in client.pushes(timeout=PATIENCE):
            pass


def main() -> int:
    """Run, and put what goes wrong into one line."""
    try:
        work(*sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except (pysock.PysockError, OSError) as error:
        sys.stderr.write(f"{getattr(error, 'strerror', None) or error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
