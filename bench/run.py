"""One run: a fresh server process on one core, who puts it under load on another, and what that gave."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from bench import tls
from bench.build import ROOT, BuildFailed, built
from bench.machine import Cores, pinned
from bench.peers import Peer
from bench.scenarios import Load

#: Seconds that a run may take beyond those of its load.
PATIENCE: Final = 60.0


class RunFailed(Exception):
    """In one line, for the row of the table."""


@contextmanager
def serving(peer: Peer, load: Load, core: int) -> Iterator[tuple[str, int, Path]]:
    """A server in a process of its own: its address, its pid and its log. It may not listen yet."""
    # Short, whatever TMPDIR is: the path of a Unix socket has 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="psb", dir="/tmp"))
    address = f"unix:{directory}/s" if load.transport == "unix" else f"{load.transport}:127.0.0.1:{_free_port()}"
    log = directory / "log"
    try:
        with log.open("wb") as output, pinned(core):
            process = subprocess.Popen(
                [*_command(peer, load, address), *_secured(load, directory)],
                cwd=ROOT,
                env=_variables(peer),
                stdout=output,
                stderr=output,
            )
        try:
            yield address, process.pid, log
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(peer: Peer, load: Load, *, seconds: float, warmup: float, cores: Cores) -> dict[str, float]:
    """Measure once.

    :raises RunFailed: it can't be measured, or went wrong.
    """
    core = cores.server if load.same_core else cores.client
    with serving(peer, load, cores.server) as (address, pid, log):
        spec = {
            "address": address,
            "pid": pid,
            "log": str(log),
            "load": asdict(load),
            "client": peer.client,
            "framing": peer.framing,
            "seconds": seconds,
            "warmup": warmup,
        }
        result = _drive(spec, core, peer, 4 * seconds + warmup + PATIENCE)
        if "error" in result:
            raise RunFailed(_one_line(str(result["error"]), log))
        return result


def _drive(spec: dict[str, object], core: int, peer: Peer, timeout: float) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.drive", json.dumps(spec)]
    with pinned(core):
        process = subprocess.Popen(
            command, cwd=ROOT, env=_variables(peer), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"no end after {timeout:.0f} seconds") from None
    finally:
        process.kill()
        process.wait()
    try:
        found: dict[str, float] = json.loads(out)
    except ValueError:
        raise RunFailed(f"the client ended with {process.returncode}: {_last_line(err)}") from None
    return found


def _command(peer: Peer, load: Load, address: str) -> list[str]:
    work = ["--work-us", f"{load.work_us:g}"] if load.work_us else []
    if not peer.in_c:
        switches = [f"--{name}" for name in ("hog", "broadcast") if getattr(load, name)]
        switches += ["--ask"] * load.client_certs
        return [sys.executable, "-m", f"bench.servers.{peer.server}", address, *peer.arguments, *switches, *work]
    if load.broadcast:
        work += ["--broadcast", "1"]
    if load.client_certs:
        work += ["--ask", "1"]
    try:
        return [str(built(peer.server)), address, *peer.arguments, *work]
    except BuildFailed as error:
        raise RunFailed(str(error)) from None


def _secured(load: Load, directory: Path) -> list[str]:
    """Options of a server that speaks TLS."""
    if load.transport != "tls":
        return []
    return ["--cert", str(tls.make_certificate(directory))]


def _variables(peer: Peer) -> dict[str, str]:
    # Nothing that is measured inherits a choice of ours.
    own = {name: value for name, value in os.environ.items() if name not in {"PYSOCK_BACKEND", "UV_USE_IO_URING"}}
    return {**own, **dict(peer.environment)}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _one_line(error: str, log: Path) -> str:
    """With the last words of the server, if it had any."""
    last = _last_line(log.read_text(errors="replace"))
    return " ".join(f"{error}; {last}".split()) if last and not last.startswith("hog ") else error


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def capacity(peer: Peer, load: Load, *, seconds: float, warmup: float, cores: Cores) -> float:
    """What it can do in a closed loop of this shape, in messages per second."""
    closed = replace(load, share=None, rate=None, stuck=0)
    return run(peer, closed, seconds=seconds, warmup=warmup, cores=cores)["messages_per_second"]
