"""One client process of ``pysock demo``: ``python -m pysock.demo.client ADDRESS NAME SERVICE MANNER PACE``.

It connects, waits until the server says that everybody is there, sends each line of its standard input as a request
(a part of them slowly, in PACE seconds, so that they can be watched; the others as fast as it can, which is measured),
reports the sum of the replies, and stays connected until the server drains; what is pushed to it meanwhile, it tells
the server that it has it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence

import pysock
from pysock.base.clock import monotonic

ONE_BY_ONE = "one by one"
PIPELINED = "pipelined"

#: How long the others may take to connect, or a request to be answered.
PATIENCE = 30.0


#: While a client goes slowly: requests a second, and the part of its lines that it sends so at most.
PACED_RATE = 100.0
PACED_PART = 0.25


def paced(lines: Sequence[bytes], seconds: float, send: Callable[[bytes], bytes]) -> list[bytes]:
    """Send the first of the lines, evenly spread over so many seconds, and return the replies."""
    count = min(int(PACED_PART * len(lines)), int(PACED_RATE * seconds))
    replies = []
    for line in lines[:count]:
        replies.append(send(line))
        time.sleep(seconds / count)
    return replies


def work(address: str, name: str, service: str, manner: str, pace: str) -> None:
    """Be one client, from the connection initiation request to the server's goodbye."""
    lines = sys.stdin.buffer.read().split(b"\n")[:-1]  # the parent ends every line with a newline
    with pysock.connect(address, name=name) as client:
        if next(client.pushes(timeout=PATIENCE), None) is None:
            raise TimeoutError("the server never said that everybody is there")

        def send(line: bytes) -> bytes:
            return client.request(line, service=service, timeout=PATIENCE)

        slow = paced(lines, float(pace), send)
        burst = lines[len(slow) :]
        started = monotonic()
        if manner == PIPELINED:
            fast = client.request_many(burst, service=service, timeout=math.inf)
        else:
            fast = [send(line) for line in burst]
        ended = monotonic()
        words = sum(map(int, slow)) + sum(map(int, fast))
        report = {
            "lines": len(slow) + len(fast),
            "words": words,
            "burst": len(fast),
            "started": started,
            "ended": ended,
        }
        client.request(json.dumps(report).encode(), service="report", timeout=PATIENCE)
        for push in client.pushes(timeout=PATIENCE):
            client.request(push, service="heard", timeout=PATIENCE)


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
