"""The client's side of one run, as a process of its own: ``python -m bench.drive JSON``.

It waits until the server listens, warms it up, puts it under load, and reads from the system what that cost the server.
What it prints is one JSON object; if something went wrong, with nothing in it but ``error``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import pyload, tls
from bench.fanout import Fanout
from bench.herd import Herd, Stuck
from bench.servers.common import endpoint

PATIENCE: Final = 20.0
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

#: Who makes the load, for so many seconds.
Maker = Callable[[float], dict[str, Any]]


class ServerGone(Exception):
    """It ended, or it doesn't listen."""


class Server:
    """The measured process, as /proc and its clock show it."""

    def __init__(self, address: str, pid: int, log: Path) -> None:
        self.address, self.pid, self.log = address, pid, log
        # The clock of another process, user and system time of all its threads, also of those that have ended, to the
        # nanosecond: clock_getcpuclockid(3). What /proc/PID/stat shows is the same in ticks of 10 ms.
        self._clock = (~pid << 3) | 2

    def cpu_seconds(self) -> float:
        return time.clock_gettime(self._clock)

    def thread_seconds(self, thread: int) -> float:
        """Of one thread."""
        return int(Path(f"/proc/{self.pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def alive(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except FileNotFoundError:
            return False

    def await_listening(self) -> None:
        is_unix, where = endpoint(self.address)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.alive():
            with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET) as probe:
                try:
                    probe.connect(where)
                    return
                except OSError:
                    time.sleep(0.005)
        raise ServerGone("the server doesn't listen" if self.alive() else "the server ended")

    def hog(self) -> int:
        """The id of its busy thread; 0 if it has none."""
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("hog "):
                return int(line.split()[1])
        return 0


def put_under_load(server: Server, spec: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One run of whoever makes the load."""
    load = spec["load"]
    if spec["client"]:
        return pyload.run(pyload.connector(spec["client"]), server.address, load=load, seconds=seconds)
    if load["transport"] == "tls":
        port = int(server.address.rpartition(":")[2])
        return tls.run(port, load, seconds, server.log.parent / tls.CERTIFICATE)
    from pysock.load import run_load  # noqa: PLC0415 - the extension may be missing

    result = run_load(
        server.address,
        framing=spec["framing"],
        connections=load["connections"],
        in_flight=load["in_flight"],
        size=load["size"],
        rate=load["rate"],
        churn=load["churn"],
        duration=seconds,
    ).as_dict()
    del result["histogram"]
    return result


def measure(server: Server, spec: dict[str, Any], make: Maker) -> dict[str, float]:
    """Load, and what it cost."""
    hog = server.hog() if spec["load"]["hog"] else 0
    hog_before = server.thread_seconds(hog) if hog else 0.0
    before = server.cpu_seconds()
    result = make(spec["seconds"])
    used = server.cpu_seconds() - before
    hog_used = server.thread_seconds(hog) - hog_before if hog else 0.0
    latency = result["latency_us"]
    return {
        "messages_per_second": result["messages_per_second"],
        "p50_us": latency["p50"],
        "p99_us": latency["p99"],
        "p999_us": latency["p99.9"],
        "max_us": latency["max"],
        "cpu_us": (used - hog_used) * 1e6 / max(1, result["messages"]),
        "client_core": result["client_core"],
        "resident_bytes": float(server.resident_bytes()),
        "errors": float(result["errors"]),
        **({"hog_core": hog_used / result["seconds"]} if hog else {}),
    }


def measure_with_herd(server: Server, spec: dict[str, Any], make: Maker, stack: ExitStack) -> dict[str, float]:
    """Without the herd, then with it."""
    count = spec["load"]["idle"]
    alone = measure(server, spec, make)
    before = server.resident_bytes()
    herd = Herd(server.address, count, spec["framing"])
    stack.callback(herd.close)
    idle_bytes = (server.resident_bytes() - before) / count
    together = measure(server, spec, make)
    kept = together["messages_per_second"] / alone["messages_per_second"]
    return {**together, "idle_bytes": idle_bytes, "herd_seconds": herd.seconds, "kept": kept}


def drive(spec: dict[str, Any]) -> dict[str, float]:
    server = Server(spec["address"], spec["pid"], Path(spec["log"]))
    server.await_listening()
    load = spec["load"]
    with ExitStack() as stack:
        if load["broadcast"]:
            fanout = Fanout(server.address, load["connections"], load["size"], load["stuck"])
            stack.callback(fanout.close)
            make = fanout.run
        else:
            make = partial(put_under_load, server, spec)
        if spec["warmup"]:
            with suppress(Exception):  # what is wrong will be wrong again; a slow server may need longer for a reply
                make(spec["warmup"])
        for _ in range(0 if load["broadcast"] else load["stuck"]):
            stack.callback(Stuck(server.address).close)
        if load["idle"]:
            return measure_with_herd(server, spec, make, stack)
        return measure(server, spec, make)


def main() -> None:
    try:
        print(json.dumps(drive(json.loads(sys.argv[1]))))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # whatever a peer's client raises is that row's result
        print(json.dumps({"error": f"{type(error).__name__}: {error}" if str(error) else type(error).__name__}))


if __name__ == "__main__":
    main()
