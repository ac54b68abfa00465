from __future__ import annotations

import inspect
import json

import pytest
from support import run_python

import pysock

#: What the documentation describes, and so promises.
PUBLIC = [
    *(
        "Server",
        "serve",
        "servers",
        "Client",
        "connect",
        "MasterSocket",
        "DataSocket",
        "ClientTable",
        "Limits",
        "ServerState",
    ),
    *("ConnectionState", "Address", "backend", "__version__", "PysockError", "ProtocolError", "ConnectionRefused"),
    *("RemoteError", "RequestTimeout", "ServerFull", "FrameTooLarge", "AddressInUse", "Group", "Admin"),
    *("ClientRow", "LeftClient", "Snapshot"),
    *("BusDown", "NodeGone", "DeliveryUnknown", "HandoverFailed"),
    *(
        "Cluster",
        "ClusterClient",
        "ClusterClients",
        "ClusterGroup",
        "ClusterNode",
        "ClusterState",
        "NodeChange",
        "Spread",
    ),
    *("ProxyHeader", "ProxyTLS"),
    *("Reply", "Request", "current", "later"),
    "notify_systemd",
    *("TLS", "TLSError", "TLSInfo", "tls_driver"),
    *("Cancelled", "Overloaded", "OutcomeUnknown", "Backoff", "Pool", "Pong", "HealthAgent", "control"),
    *("Buffer", "ConnectionLost", "DisconnectReason", "ErrorCode", "IllegalTransition", "Peer"),
]


def test_the_public_names_are_exactly_those_of_the_design():
    assert sorted(pysock.__all__) == sorted(PUBLIC)
    assert len(set(pysock.__all__)) == len(pysock.__all__)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ("backend", "tls_driver")])
def test_every_public_name_is_there_and_documented(name):
    value = getattr(pysock, name)
    assert inspect.getdoc(value) or value.__module__ == "collections.abc"  # Python's own Buffer, since 3.12, has none


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pysock' has no attribute 'Sever'"):
        pysock.Sever  # noqa: B018


def test_every_public_method_is_documented():
    classes = [
        value for value in vars(pysock).values() if inspect.isclass(value) and value.__module__.startswith("pysock")
    ]
    undocumented = [
        f"{cls.__name__}.{name}"
        for cls in classes
        for name, value in vars(cls).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property)) and not inspect.getdoc(value)
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        ("ProtocolError", ConnectionError),
        ("ConnectionRefused", ConnectionRefusedError),
        ("ServerFull", ConnectionRefusedError),
        ("RemoteError", RuntimeError),
        ("Cancelled", RuntimeError),
        ("Overloaded", RuntimeError),
        ("RequestTimeout", TimeoutError),
        ("FrameTooLarge", ValueError),
        ("OutcomeUnknown", ConnectionResetError),
        ("AddressInUse", OSError),
        ("BusDown", ConnectionError),
        ("NodeGone", ConnectionError),
    ],
)
def test_each_exception_is_also_the_builtin_one_would_catch(error, builtin):
    cls = getattr(pysock, error)
    assert issubclass(cls, pysock.PysockError)
    assert issubclass(cls, builtin)


def modules_after(statement):
    done = run_python(f"import sys, json, pysock; {statement}; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_importing_loads_next_to_nothing():
    ours = {name for name in modules_after("pass") if name.startswith("pysock")}
    assert ours == {"pysock", "pysock._version"}


def test_what_is_public_is_found_by_dir_and_by_a_star_import():
    namespace = {}
    exec("from pysock import *", namespace)
    assert set(pysock.__all__) <= set(dir(pysock))
    assert set(pysock.__all__) <= set(namespace)


def test_a_server_needs_nothing_heavy():
    modules = modules_after("pysock.Server, pysock.connect")
    assert "pysock.server" in modules
    heavy = {"asyncio", "multiprocessing", "click", "rich", "hiredis", "cffi", "pysock._engine", "concurrent.futures"}
    assert not heavy & modules
    assert not {"pysock.engine.native.engine", "pysock.engine.pure.turn", "pysock.cli"} & modules


def test_backend_names_the_engine_in_use():
    done = run_python("import pysock; print(pysock.backend)", PYSOCK_BACKEND="pure")
    assert done.stdout == "pure\n", done.stderr


def test_backend_can_be_imported_from():
    done = run_python("from pysock import backend; print(backend)", PYSOCK_BACKEND="pure")
    assert done.stdout == "pure\n", done.stderr


def test_an_unknown_backend_is_an_error():
    done = run_python("import pysock; pysock.backend", PYSOCK_BACKEND="fast")
    assert "ParameterError: unknown backend 'fast': choose one of auto, native, pure" in done.stderr
    with pytest.raises(ValueError, match="unknown backend 'fast': choose one of auto, native, pure"):
        pysock.Server("unix:/x", backend="fast")


def test_warnings_reach_standard_error_where_the_program_has_not_configured_logging():
    log = "logging.getLogger('pysock.server')"
    done = run_python(f"import pysock, logging; pysock.Server; {log}.warning('x'); {log}.info('y')")
    assert (done.stdout, done.stderr) == ("", "x\n")
