"""Fixtures: a test that asks for ``backend`` runs on every engine, one that asks for ``address`` on the transports."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import itertools
import logging
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import pytest
from certificates import certificates
from restarted import Played, Restarted
from support import TEST_DIRECTORY, FakeServer, own_host, plug, short_directory
from wire import CUTS

from pysock import MasterSocket, Server
from pysock.descriptors import raise_descriptor_limit
from pysock.engine.choice import choose

#: More fixtures, of one topic each, in tests/help.
pytest_plugins = ["bus_fixtures", "cluster_fixtures", "commanded"]

BACKENDS = ("native", "pure")
#: Where what asks for ``transport`` is also tried over TLS; with PYSOCK_TEST_TLS=1 that is everywhere.
OVER_TLS = ("test_handlers.py", "test_client.py", "test_wire_features.py")
TLS_EVERYWHERE = os.environ.get("PYSOCK_TEST_TLS") == "1"
#: Each plain handler is called by one that is ``async def``, and all must be as it was; what can't be is marked.
ASYNC_HANDLERS = os.environ.get("PYSOCK_TEST_HANDLERS") == "async"
#: Of a test with more cases only so many are run: for another pass over what a first one has tried whole.
CASES = int(os.environ.get("PYSOCK_TEST_CASES") or 0)

# A program started in the background by a shell ignores Ctrl-C, and so would all that the tests start (POSIX,
# "Asynchronous Lists"). A handler of ours, whatever it does, gives them the default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def native_is_missing() -> bool:
    """Whether the extension isn't there. One that is there and broken raises its own error here."""
    try:
        choose("native")
    except ImportError as error:
        if error.name is None and isinstance(error.__cause__, ModuleNotFoundError):
            return True
        raise
    return False


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Under LeakSanitizer leaks are looked for in this process and its workers, not in the programs that tests start:
    it can't look while strace does, nor beside threads that a process takes with it when it ends.
    """
    has_workers = getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput")
    if not hasattr(config, "workerinput"):
        _clear_up_at_the_end(config)
    if has_workers:  # no test runs in this process: SIGTERM ends it as Ctrl-C does, so that it clears up
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise_descriptor_limit()  # else each server of a test would warn of the usual limit of 1024
    if "ASAN_OPTIONS" in os.environ and not has_workers:
        os.environ["ASAN_OPTIONS"] += ":detect_leaks=0"


def _clear_up_at_the_end(config: pytest.Config) -> None:
    """All directories are in one, which goes with this process, however the tests end; pytest's own, too, unless
    ``--basetemp`` asks for them.
    """
    root = tempfile.mkdtemp(prefix="psk", dir="/tmp")
    os.chmod(root, 0o755)  # some tests are other users, who go through it
    os.environ[TEST_DIRECTORY] = root
    config.add_cleanup(lambda: shutil.rmtree(root, ignore_errors=True))
    config.option.basetemp = config.option.basetemp or f"{root}/pytest"


def pytest_report_header() -> str:
    engine = "MISSING, ALL TESTS OF IT ARE SKIPPED" if native_is_missing() else "there"
    return f"pysock native engine: {engine}{', EACH HANDLER AN ASYNC ONE' if ASYNC_HANDLERS else ''}"


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Whoever changes what is logged takes that back, or later tests are told of what they don't expect. A level
    that is set as an attribute is remembered by its logger when it is no longer so: ``setLevel`` makes it forget.
    """
    yield
    assert not logging.getLogger("pysock.server").isEnabledFor(logging.INFO)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of an engine."""
    if request.param == "native" and native_is_missing():
        if os.environ.get("PYSOCK_REQUIRE_NATIVE") == "1":
            pytest.fail("the native engine isn't built, and PYSOCK_REQUIRE_NATIVE=1")
        pytest.skip("the native engine isn't built (PYSOCK_BUILD=require pip install -e . says why)")
    return str(request.param)


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory with a short name: pytest's own are too long for the 107 bytes of a Unix socket's path."""
    path = short_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


#: TLS by Python's module ssl, where the engine would have another driver: see ``driver``.
BY_SSL = "tls by ssl"


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """How a client comes, by one of those of ``transports``."""
    return str(request.param).partition(" ")[0]


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What asks for ``transport`` is tried over several: made are only those that are run, for making takes its time,
    too, and each worker makes them all.
    """
    chosen = [name for mark in metafunc.definition.iter_markers("parametrize") for name in names_of(mark)]
    if "transport" in metafunc.fixturenames and "transport" not in chosen:
        metafunc.parametrize("transport", transports(metafunc), indirect=True)


def names_of(mark: pytest.Mark) -> list[str]:
    """What a ``parametrize`` chooses."""
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]


def transports(metafunc: pytest.Metafunc) -> list[str]:
    """A MasterSocket that is used by hand speaks no TLS."""
    item = metafunc.definition
    wanted = TLS_EVERYWHERE or item.path.name in OVER_TLS
    if not wanted or "master" in metafunc.fixturenames or item.get_closest_marker("not_over_tls"):
        return ["unix", "tcp"]
    return ["unix", "tcp", "tls", BY_SSL]


@pytest.fixture(params=["auto", "ssl"])
def driver(request: pytest.FixtureRequest) -> str:
    """``tls_driver=`` of the servers that ``make_server`` makes. The pure engine has but one."""
    return str(request.param)


def params_of(item: Any) -> dict[str, Any]:
    """By what a test was parametrized."""
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


@pytest.fixture
def address(transport: str, socket_dir: Path) -> str:
    """Where a server can listen; clients go to ``server.addresses[0]``."""
    if transport == "tls":
        return certificates().at("tls://127.0.0.1:0")
    return f"unix:{socket_dir}/s" if transport == "unix" else "tcp://127.0.0.1:0"


@pytest.fixture
def unix_address(socket_dir: Path) -> str:
    """For what doesn't depend on the transport, or only a Unix socket has."""
    return f"unix:{socket_dir}/s"


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest) -> str:
    """How a stream of bytes is cut into pieces, for ``wire.pieces``."""
    return str(request.param)


@pytest.hookimpl(trylast=True)  # of what -k and -m have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What holds for plain handlers only is left out where there are none. What is cut into pieces is cut in one way
    over TCP, in all of them over Unix sockets: to who puts them together the bytes are the same. Nodes on the pure
    engine are on one bus: what stands on an engine doesn't see which one it is, nor does a bus.
    """
    wanted = [item for item in items if not _is_left_out(item)]
    if CASES:
        wanted = [*_few_of_each(wanted)]
    left_out = {*items}.difference(wanted)
    items[:] = wanted
    config.hook.pytest_deselected(items=[*left_out])


def _few_of_each(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Of each test so many cases, drawn always alike, in their order."""
    for name, group in itertools.groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        cases = [*group]
        kept = random.Random(name).sample(range(len(cases)), min(CASES, len(cases)))
        yield from (cases[n] for n in sorted(kept))


def _is_left_out(item: pytest.Item) -> bool:
    given = params_of(item)
    transport = given.get("transport", "unix")
    if transport != "unix" and given.get("cut", "random") != "random":
        return True
    if given.get("bus_engine", "local") != "local" and given.get("backend", "native") != "native":
        return True
    if (transport == BY_SSL or given.get("driver") == "ssl") and given.get("backend") != "native":
        return True
    return ASYNC_HANDLERS and item.get_closest_marker("plain") is not None


class Awaited(Server):
    """A server whose plain handlers are called by async ones."""

    def service(self, name: Any = None, /, **options: Any) -> Any:
        if name is not None and not isinstance(name, str):
            super().service(_awaited(name), **options)
            return name

        def register(handler: Any) -> Any:
            super(Awaited, self).service(name, **options)(_awaited(handler))
            return handler

        return register


def _awaited(handler: Any) -> Any:
    if not isinstance(handler, (FunctionType, MethodType)) or inspect.iscoroutinefunction(handler):
        return handler

    @functools.wraps(handler)
    async def call(client: Any, request: Any) -> Any:
        return handler(client, request)

    return call


@pytest.fixture
def make_server(backend: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """``make_server(*addresses, **options)``: a Server on this engine, which is ended after the test."""
    made: list[Server] = []
    kind = Awaited if ASYNC_HANDLERS else Server
    params = params_of(request.node)
    by = "ssl" if params.get("transport") == BY_SSL else params.get("driver", "auto")

    def make(*addresses: str, **options: Any) -> Server:
        made.append(kind(*addresses, backend=backend, **{"tls_driver": by, **options}))
        return made[-1]

    yield make
    for server in made:
        server.stop(0)


@pytest.fixture
def fake(socket_dir):
    """``fake(play)``: the address of a server that follows this script."""
    made = []

    def start(play):
        made.append(FakeServer(f"{socket_dir}/fake{len(made)}", play))
        return made[-1].address

    yield start
    for server in made:
        server.close()


@pytest.fixture
def home(transport, socket_dir):
    """Where one server after the other can listen."""
    if transport == "unix":
        return f"unix:{socket_dir}/s"
    if transport == "tls":
        pytest.skip("servers that are restarted speak no TLS here")
    with socket.socket() as probe:
        probe.bind((own_host(), 0))
        return f"tcp://{own_host()}:{probe.getsockname()[1]}"


@pytest.fixture
def server(home, backend):
    """One that can be restarted; it isn't started yet."""
    one = Restarted(home, backend)
    yield one
    one.stop(0)


@pytest.fixture
def played(socket_dir):
    """``played(*scripts)``: the address of a server that follows one script after the other."""
    made = []

    def play(*scripts):
        made.append(Played(f"{socket_dir}/played{len(made)}", scripts))
        return made[-1].address

    yield play
    for one in made:
        one.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    """The kind of a loop."""
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop isn't installed: ITS HALF OF THESE TESTS IS SKIPPED")
    return request.param


@pytest.fixture
def run(loop):
    """``run(coroutine)``, to its end in a loop of this kind."""
    return asyncio.run if loop == "asyncio" else importlib.import_module("uvloop").run


@pytest.fixture
def serve(make_server, unix_address, loop):
    """``serve(handler)``: a server that has it, with a loop of its own of this kind, and runs."""
    return functools.partial(_serve, make_server, unix_address, loop)


def _serve(make_server, address, loop, handler, **options):
    server = make_server(options.pop("address", address), loop=loop, **options)
    server.service(handler)
    server.start()
    return server


@pytest.fixture
def master(backend, address):
    with MasterSocket(address, backend) as master:
        yield master


@pytest.fixture
def listening(master):
    for step in (master.remove_stale, master.create, master.bind, master.listen):
        step()
    return master


@pytest.fixture
def pair(listening):
    """A plain client, and its data socket."""
    with plug(listening.address) as client, listening.accept() as data:
        yield client, data
