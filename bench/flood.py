"""What a flood of handshakes does to clients that are there: ``python -m bench.flood [SECONDS [ROUNDS [PEER...]]]``.

It stands in no table, since it is no load like the others: two generators share a core, and one of them has it first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from statistics import median
from typing import Final

from bench.drive import Server
from bench.machine import Cores, pinned
from bench.peers import PEERS
from bench.run import PATIENCE, serving
from bench.scenarios import Load
from bench.tls import CERTIFICATE, command

#: Who is flooded, and by so many handshakes at once.
FLOODED: Final = ("tls-floor", "pysock", "pysock-ssl", "pysock-pure", "uvloop", "asyncio")
AT_ONCE: Final = 64
#: Clients that are there, and how they ask: connections, and requests a second; 0: as fast as they can.
THERE: Final = ((64, 0), (8, 2000))


def flooded(name: str, connections: int, rate: int, seconds: float) -> dict[str, float]:
    """The p99 of those who are there, in us, without a flood and in one; and the flood's handshakes a second."""
    cores = Cores.choose()
    load = Load(transport="tls", connections=connections, rate=rate or None)
    # The other way round than elsewhere: the first core has the machine's own work, and who measures goes first there.
    with serving(PEERS[name], load, cores.client) as (address, pid, log), pinned(cores.server):
        Server(address, pid, log).await_listening()
        port, cert = int(address.rpartition(":")[2]), log.parent / CERTIFICATE
        # Who measures doesn't wait for who floods, with whom it has one core; nor the server for anybody.
        first = ["chrt", "--fifo"] if os.geteuid() == 0 and shutil.which("chrt") else []
        if first:
            subprocess.run([*first, "--all-tasks", "--pid", "1", str(pid)], check=True)
        words = [*first, *(["1"] if first else []), *command(port, asdict(load), seconds, cert)]
        quiet = json.loads(subprocess.check_output(words))
        flood = asdict(replace(load, connections=AT_ONCE, in_flight=0, rate=None, churn=True))
        storm = subprocess.Popen(command(port, flood, seconds + 1, cert), stdout=subprocess.PIPE)
        try:
            time.sleep(0.5)
            loud = json.loads(subprocess.check_output(words))
            text, _ = storm.communicate(timeout=seconds + PATIENCE)
        finally:
            storm.kill()
            storm.wait()
    found = json.loads(text)
    return {
        "quiet": quiet["latency_us"]["p99"],
        "loud": loud["latency_us"]["p99"],
        "kept": loud["messages_per_second"] / quiet["messages_per_second"],
        "greeted": found["greeted"] / found["seconds"],
    }


def main(seconds: float, rounds: int, names: list[str]) -> None:
    for connections, rate in THERE:
        print(f"{connections} clients, {f'{rate:,} requests/s' if rate else 'as fast as they can'}; p99 in us")
        for name in names or FLOODED:
            rows = [flooded(name, connections, rate, seconds) for _ in range(rounds)]
            middle = {key: median(row[key] for row in rows) for key in rows[0]}
            print(
                f"  {PEERS[name].title:28} {middle['quiet']:8,.0f} {middle['loud']:8,.0f}"
                f"  {median(row['loud'] / row['quiet'] for row in rows):6.2f} times;"
                f" {middle['kept']:.0%} of the requests, beside {middle['greeted']:6,.0f} handshakes/s",
                flush=True,
            )


if __name__ == "__main__":
    main(float((sys.argv[1:] or ["2"])[0]), int((sys.argv[2:] or ["3"])[0]), sys.argv[3:])
