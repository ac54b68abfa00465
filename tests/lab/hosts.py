"""Hosts of one machine: network namespaces on a bridge, each with an address, and what is lost on the way to each."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from typing import Any

from lab.experiment import Missing

#: What is done to packets of a host, as lines of nftables: by chain.
ALL = {"input": "drop;", "output": "drop;"}
DEAF = {"input": "drop;"}
MUTE = {"output": "drop;"}
LOSSY = dict.fromkeys(("input", "output"), "numgen random mod 100 < 5 drop;")

#: What a host says to itself.
_OWN = {"input": 'iifname "lo"', "output": 'oifname "lo"'}


def apart_from(address: str) -> dict[str, str]:
    """Nothing goes from or to another host."""
    return {"input": f"ip saddr {address} drop;", "output": f"ip daddr {address} drop;"}


class Hosts:
    """So many, with the addresses ``10.213.0.1`` and so on, in namespaces of this process's own name.

    :raises Missing: this isn't root, or a tool isn't there.
    """

    def __init__(self, count: int) -> None:
        for name in ("ip", "nft"):
            if shutil.which(name) is None:
                raise Missing(f"{name} isn't installed")
        if os.geteuid() != 0:
            raise Missing("only root can make hosts of its own")
        self._prefix = f"psk{os.getpid()}"
        self._bridge = f"{self._prefix}-br"
        self._made: list[str] = []
        self.names = [f"{self._prefix}-{number}" for number in range(1, count + 1)]
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def address(number: int) -> str:
        """Of a host; the first is 0."""
        return f"10.213.0.{number + 1}"

    def _make(self) -> None:
        self._namespace(self._bridge)
        _ip("-n", self._bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._bridge, "link", "set", "br0", "up")
        for number, name in enumerate(self.names):
            self._namespace(name)
            _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", f"v{number}", "netns", self._bridge)
            _ip("-n", self._bridge, "link", "set", f"v{number}", "master", "br0", "up")
            _ip("-n", name, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")

    def _namespace(self, name: str) -> None:
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def start(self, number: int, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """A program on this host."""
        return subprocess.Popen(["ip", "netns", "exec", self.names[number], *command], **options)

    def lose(self, number: int, rules: dict[str, str]) -> None:
        """From now on this happens to its packets, and nothing else."""
        chains = " ".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; {_OWN[hook]} accept; {rule} }};"
            for hook, rule in rules.items()
        )
        text = f"flush ruleset\ntable inet chaos {{ {chains} }}\n" if rules else "flush ruleset\n"
        command = ["ip", "netns", "exec", self.names[number], "nft", "-f", "-"]
        subprocess.run(command, input=text.encode(), check=True, capture_output=True)

    def close(self) -> None:
        """Nothing is left of them."""
        for name in self._made:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
