"""Fixtures of buses: a test that asks for ``bus_engine`` or ``bus_node`` runs on every one."""

from __future__ import annotations

import os
import shutil
from itertools import count

import pytest
from buses import ENGINES, Node
from support import short_directory

_numbers = count(1)


@pytest.fixture(scope="session")
def bus_engines():
    """Those that run, by kind: each is started when it is first asked for, and ended for certain."""
    found, directory = {}, short_directory()
    yield lambda kind: found.get(kind) or found.setdefault(kind, ENGINES[kind](directory))
    for one in found.values():
        one.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=list(ENGINES))
def bus_engine(request, bus_engines):
    """A bus that runs, and does so again for the next test."""
    one = bus_engines(request.param)
    one.mend()
    yield one
    one.mend()


@pytest.fixture
def bus_prefix():
    """What the subjects of this test begin with."""
    return f"pysock.t{next(_numbers)}"


@pytest.fixture
def bus_node(bus_engine, bus_prefix):
    """Make one end of the bus; it is closed in the end."""
    made = []

    def make(name="n", url=None, start=True):
        made.append(Node(url or bus_engine.url, f"{name}{len(made)}", bus_prefix))
        return made[-1].start() if start else made[-1]

    yield make
    for one in made:
        one.bus.close()


@pytest.fixture
def bus_server(tmp_path):
    """``bus_server(Nats, conf)``: one with lines of a configuration, of this test alone."""
    made = []

    def make(kind, conf="", **options):
        made.append(kind(tmp_path, conf, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def node_at():
    """``node_at(url)``: one end of a bus, whose subjects begin with ``pysock.t``."""
    made = []

    def make(url, start=True, name="n"):
        made.append(Node(url, name, "pysock.t"))
        return made[-1].start() if start else made[-1]

    yield make
    for one in made:
        one.bus.close()


@pytest.fixture
def open_files():
    """A function that tells how many descriptors this process has."""
    return lambda: len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
