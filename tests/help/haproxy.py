"""HAProxy with the configuration of the example, as a process: its variables, and what it thinks of servers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from programs import missing
from support import PATIENCE, ROOT, wait_for

CONFIGURATIONS = ROOT / "pysock" / "examples" / "haproxy"
SERVERS = ("one", "two", "three")


def haproxy() -> str:
    """Its path; Debian has it where only root looks."""
    path = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return path or missing("haproxy isn't installed: nothing has been tested behind it")


def free_ports(host: str, count: int) -> list[int]:
    """So many that nobody else gets meanwhile, for the host is this process's own."""
    socks = [socket.create_server((host, 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


class Balancer:
    """In front of three servers, which need not be there yet.

    :ivar front: where clients go.
    :ivar servers: where the servers listen, and ``agents`` their agents.
    """

    def __init__(self, host: str, directory: Path, configuration: str = "haproxy.cfg") -> None:
        ports = free_ports(host, 7)
        self.front = f"{host}:{ports[0]}"
        self.servers = [f"{host}:{port}" for port in ports[1:4]]
        if configuration == "unix.cfg":
            self.servers = [f"{directory}/{name}" for name in SERVERS]
        self.agents = [f"{host}:{port}" for port in ports[4:]]
        self._stats = f"{directory}/stats"
        variables = {"PYSOCK_FRONT": self.front, "PYSOCK_STATS": self._stats, "PYSOCK_INTERVAL": "50ms"}
        for name, server, port in zip(SERVERS, self.servers, ports[4:], strict=True):
            variables |= {f"PYSOCK_{name.upper()}": server, f"PYSOCK_AGENT_{name.upper()}": str(port)}
        self.process = subprocess.Popen(
            [haproxy(), "-db", "-f", str(CONFIGURATIONS / configuration)],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(lambda: os.path.exists(self._stats) or self.process.poll() is not None, "HAProxy")
            assert self.process.poll() is None, self.process.communicate()[0]
        except BaseException:
            self.close()
            raise

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self._stats)
            sock.sendall(command.encode() + b"\n")
            data = b""
            while part := sock.recv(65536):
                data += part
        return data.decode()

    def states(self) -> dict[str, str]:
        """What it thinks of each server: ``UP``, ``NOLB``, ``DRAIN (agent)``, ``DOWN`` ..."""
        head, *rows = (line.split(",") for line in self._ask("show stat").removeprefix("# ").splitlines() if line)
        found = [dict(zip(head, row, strict=False)) for row in rows]
        return {row["svname"]: row["status"] for row in found if row["pxname"] == "servers"}

    def is_drained(self, name: str) -> bool:
        """Whether its agent has said "drain" last: the administrative state, see "show servers state"."""
        rows = [line.split() for line in self._ask("show servers state servers").splitlines()[1:]]
        names, *servers = ([word for word in row if word != "#"] for row in rows if row)
        (found,) = (row for row in servers if row[names.index("srv_name")] == name)
        return bool(int(found[names.index("srv_admin_state")]) & 0x08)

    def wait_until(self, name: str, up: bool) -> str:
        """Wait until it sends this server clients, or doesn't; what it says of it."""
        wait_for(lambda: self.states()[name].startswith("UP") is up, f"{name} to be {'' if up else 'not '}up")
        return self.states()[name]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
