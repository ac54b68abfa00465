"""Loads over TLS: the certificate, and the generator that speaks it, ``bench/clients/tls_load.c``."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.build import BUILD, ROOT, BuildFailed
from bench.peers import compiler

SOURCE: Final = ROOT / "bench" / "clients" / "tls_load.c"
_HEADER: Final = "#include <openssl/ssl.h>\n"
_MAKE: Final = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"

#: In the folder of a server.
CERTIFICATE: Final = "both.pem"


@cache
def missing() -> str:
    """Say why nothing can be measured here; nothing if it can."""
    if shutil.which(compiler()) is None:
        return f"not built: there is no {compiler()!r}; CC=... names another C compiler"
    words = [*shlex.split(compiler()), "-E", "-xc", "-", "-o", os.devnull]
    if subprocess.run(words, input=_HEADER, text=True, capture_output=True, check=False).returncode:
        return "not built: OpenSSL's headers aren't there (libssl-dev)"
    return "" if shutil.which("openssl") else "not installed: openssl"


def generator() -> Path:
    """The program, compiled if it isn't there.

    :raises BuildFailed: it can't be.
    """
    target = BUILD / "tls_load"
    if not target.exists() or target.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        command = [*shlex.split(compiler()), "-O2", "-o", str(target), str(SOURCE), "-lssl", "-lcrypto"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildFailed(f"{target.name} doesn't compile: {done.stderr.strip()}")
    return target


def make_certificate(folder: Path) -> Path:
    """A file with a key and its certificate, for both ends, and its own authority."""
    both, part = folder / CERTIFICATE, folder / "cert.pem"
    subprocess.run([*_MAKE.split(), "-keyout", both, "-out", part], check=True, capture_output=True)
    both.write_text(both.read_text() + part.read_text())
    return both


def command(port: int, load: dict[str, Any], seconds: float, cert: Path | None) -> list[str]:
    """Of one run, as :class:`bench.scenarios.Load` has it."""
    numbers = (port, load["connections"], load["in_flight"], load["size"], seconds)
    words = [str(generator()), *map(str, numbers)]
    if load["rate"]:
        words += ["--rate", f"{load['rate']:g}"]
    if load["churn"]:
        words += ["--churn", "0"]
    return [*words, "--cert", str(cert)] if load["client_certs"] else words


def run(port: int, load: dict[str, Any], seconds: float, cert: Path) -> dict[str, Any]:
    """What ``run_load`` gives of a load without TLS."""
    done = subprocess.run(command(port, load, seconds, cert), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"the generator ended with {done.returncode}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
