"""What TLS costs a server, against uvloop with the same context: ``python -m bench.tls [SECONDS] [ROUNDS]``.

The servers take turns on one processor, the load generator (``bench/clients/tls_load.c``) has another. What is printed
are medians, and ratios to uvloop within the same round.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.build import BUILD, ROOT
from bench.drive import Server
from bench.peers import compiler

#: By name: the server's module and arguments.
SERVERS: Final = {
    "uvloop": ("asyncio_protocol", "--loop", "uvloop"),
    "pysock": ("pysock_echo", "--backend", "native"),
}
#: Connections, requests in flight on each, bytes; and whether a thread of Python computes beside.
LOADS: Final = ((1, 1, 64, False), (32, 1, 64, False), (8, 256, 64, False), (8, 1, 102400, False), (64, 1, 1024, True))


def _built() -> Path:
    target, source = BUILD / "tls_load", ROOT / "bench" / "clients" / "tls_load.c"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        command = [*shlex.split(compiler()), "-O2", "-o", str(target), str(source), "-lssl", "-lcrypto"]
        subprocess.run(command, check=True)
    return target


def _certificate(folder: str) -> str:
    """A file with a key and its certificate."""
    path = f"{folder}/both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", path, "-out", f"{path}.cert"], check=True, capture_output=True)
    Path(path).write_text(Path(path).read_text() + Path(f"{path}.cert").read_text())
    return path


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Served:
    """A server that runs on the first processor."""

    def __init__(self, module: str, *arguments: str, tls: bool, cert: str, hog: bool = False) -> None:
        self.port = _free_port()
        address = f"{'tls' if tls else 'tcp'}:127.0.0.1:{self.port}"
        command = ["taskset", "-c", "0", sys.executable, "-m", f"bench.servers.{module}", address, *arguments]
        command += ["--cert", cert] * tls + ["--hog"] * hog
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        self.watched = Server(f"tcp:127.0.0.1:{self.port}", self.process.pid, Path(os.devnull))
        self.watched.await_listening()

    def load(self, connections: int, depth: int, size: int, seconds: float, idle: int = 0) -> dict[str, float]:
        before, began = self.watched.cpu_seconds(), time.perf_counter()
        numbers = [connections, depth, size, seconds, idle]
        command = ["taskset", "-c", "1", str(_built()), str(self.port), *map(str, numbers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rate, client, p50, handshakes = map(float, done.stdout.split())
        cpu = (self.watched.cpu_seconds() - before) / (time.perf_counter() - began)
        return {"rate": rate, "client": client, "p50": p50, "handshakes": handshakes, "cpu": cpu / rate * 1e6}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(seconds: float, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cert = _certificate(folder)
        for connections, depth, size, hog in LOADS:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in SERVERS}
            for _ in range(rounds):
                for name, (module, *arguments) in SERVERS.items():
                    served = Served(module, *arguments, tls=True, cert=cert, hog=hog)
                    try:
                        found[name].append(served.load(connections, depth, size, seconds))
                    finally:
                        served.close()
            _print(f"{connections} x {depth}, {size} B{', a busy thread beside' if hog else ''}", found)


def _print(title: str, found: dict[str, list[dict[str, float]]]) -> None:
    print(title)
    for name, rows in found.items():
        middle = {key: median(row[key] for row in rows) for key in rows[0]}
        ratio = median(row["rate"] / other["rate"] for row, other in zip(rows, found["uvloop"], strict=True))
        print(
            f"  {name:8} {middle['rate']:12,.0f}/s  {ratio:5.2f}  {middle['cpu']:8.2f} us of CPU  p50"
            f" {middle['p50']:8.1f} us  (client's CPU {middle['client']:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    measure(float((sys.argv[1:] or ["2"])[0]), int((sys.argv[2:] or ["3"])[0]))
