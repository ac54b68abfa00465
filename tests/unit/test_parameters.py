"""A wrong parameter is told of by its name: in words for Python code, and as data for whoever says it otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import pysock
from pysock.errors import KEEP_OTHERS_OUT, ParameterError
from pysock.load import LoadOptions

HERE = pysock.Address.parse("unix:/tmp/s")
OPEN = "tcp://0.0.0.0:0"


def one(_client: pysock.DataSocket, request: bytes) -> bytes:
    return request


def several(_clients: list[pysock.DataSocket], requests: list[bytes]) -> list[bytes]:
    return requests


def serving(**options: object) -> Callable[[], object]:
    """A server that says what is wrong with its parameters before it does anything."""
    address = str(options.pop("address", HERE))
    return lambda: pysock.Server(address, **options).start()  # type: ignore[arg-type]


WRONG = {
    "max_clients": lambda: pysock.Limits(max_clients=0),
    "output_drop": lambda: pysock.Limits(output_drop=1),
    "push_hard": lambda: pysock.Limits(push_hard=1),
    "max_payload": lambda: pysock.connect(HERE, max_payload=0),
    "max_pushes": lambda: pysock.connect(HERE, max_pushes=0),
    "timeout": lambda: pysock.connect(HERE, timeout=-1),
    "deadline": lambda: pysock.connect(HERE, deadline="mine"),
    "server_uid": lambda: pysock.connect("tcp://127.0.0.1:1", server_uid=0),
    "server_uid ": lambda: pysock.connect(HERE, server_uid=[]),
    "linger": serving(linger=2),
    "framing": serving(framing="no"),
    "backend": serving(backend="no"),
    "slow": serving(slow="drop"),
    "slow ": serving(slow=None),
    "expose": serving(expose="all"),
    "expose ": serving(expose=None),
    "authkey": serving(authkey=b""),
    "allow": serving(allow={}),
    "allow ": serving(allow={"uid": -2}),
    "insecure": serving(address=OPEN),
    "addresses": pysock.Server,
    "name of a client": lambda: pysock.connect(HERE, name="x" * 256),
    "name of a service": lambda: pysock.Server(HERE, framing="u32").service("a")(one),
    "max_batch": lambda: pysock.Server(HERE).batch_service(max_batch=0)(several),
    "max_wait": lambda: pysock.Server(HERE).batch_service(max_wait=-1)(several),
    "name": lambda: pysock.Server(HERE).service("x" * 256)(one),
    "transport": lambda: pysock.Address("udp"),
    "path": lambda: pysock.Address("unix", "/tmp/"),
    "host": lambda: pysock.Address("tcp", host="a b"),
    "port": lambda: pysock.Address("tcp", host="a", port=-1),
    "fd": lambda: pysock.Address("fd"),
    "mode": lambda: pysock.Address("unix", "/tmp/s", mode=8**4),
    "user": lambda: pysock.Address("unix", "/tmp/s", user="a b"),
    "backlog": lambda: pysock.Address("unix", "/tmp/s", backlog=0),
    "address": lambda: pysock.Address.parse("udp://a"),
    "connections": lambda: LoadOptions(address=HERE, count=1, connections=0),
    "in_flight": lambda: LoadOptions(address=HERE, count=1, churn=True, in_flight=2),
    "duration": lambda: LoadOptions(address=HERE),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_names_its_parameter(case: str) -> None:
    with pytest.raises(ParameterError) as caught:
        WRONG[case]()
    error, parameter = caught.value, case.split(maxsplit=1)[0]
    assert error.parameter == parameter
    assert parameter in error.name or error.name in {"", "the descriptor"}
    advice = f": {error.advice}" if error.advice else ""
    assert str(error) == f"{error.name} {error.problem}{advice}".strip()
    assert not isinstance(error, pysock.PysockError)  # it is a mistake in the program


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (WRONG["max_clients"], "Limits.max_clients must be more than 0 and at most 16000000, not 0"),
        (WRONG["timeout"], "a timeout must be 0 or more seconds, not -1"),
        (WRONG["authkey"], "the authkey is empty; make one with secrets.token_bytes(32)"),
        (serving(framing="u32", authkey=b"k"), "authkey= needs the framing 'pysock': 'u32' has no frames to prove it"),
        (WRONG["port"], "the port must be a number from 0 to 65535, not -1; write for example tcp://127.0.0.1:9000"),
        (WRONG["address"], "bad address 'udp://a': unknown scheme 'udp'; write unix:"),
    ],
)
def test_the_text_is_for_python_code(wrong: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is compared below
        wrong()
    assert str(caught.value).startswith(text)


def test_problem_and_advice_are_apart() -> None:
    with pytest.raises(ParameterError) as caught:
        WRONG["insecure"]()
    error = caught.value
    assert error.advice == KEEP_OTHERS_OUT
    assert ": other machines can connect there, and this server" in error.problem
    assert str(error) == f"{error.problem}: {KEEP_OTHERS_OUT}"
