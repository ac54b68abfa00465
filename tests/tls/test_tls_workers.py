"""Workers that speak TLS: a client goes on with its session at any of them, for they have the same keys."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack

import pytest
from certificates import certificates
from conftest import native_is_missing
from crews import Crew, is_alive
from support import wait_for

import pysock
from pysock import TLS
from pysock.tls.client import _key
from pysock.tls.tickets import PERIOD, SIZE, GivenKeys, SharedKeys, given, next_keys

if native_is_missing():
    pytest.skip("the native engine isn't built", allow_module_level=True)


class Hours:
    """A clock."""

    now = 1000

    def __call__(self):
        return self.now * PERIOD + 7


def test_those_of_the_hour_before_are_told_and_older_ones_forgotten():
    clock = Hours()
    shared = SharedKeys(clock)
    first = shared.told()
    assert (first["period"], len(bytes.fromhex(first["keys"]))) == (999, SIZE)
    assert shared.told() == first != SharedKeys(clock).told()
    assert SharedKeys.taken_up(shared.told()).told() == shared.told()  # by a supervisor that runs anew
    clock.now += 1
    second = shared.told()
    assert (second["period"], second["keys"]) == (1000, next_keys(bytes.fromhex(first["keys"])).hex())
    clock.now += 3
    shared.go_on()
    third = shared.told()
    assert third["period"] == 1003
    assert first["keys"] not in repr(vars(shared))
    keys = bytes.fromhex(second["keys"])
    for _ in range(3):
        keys = next_keys(keys)
    assert third["keys"] == keys.hex()


def test_they_are_handed_over_once():
    keys = GivenKeys()
    assert keys.hand_over() is None
    keys.take({"keys": bytes(SIZE).hex(), "period": 5})
    assert [keys.hand_over(), keys.hand_over()] == [(bytes(SIZE), 5), None]


def test_the_next_ones_are_those_of_the_engine(monkeypatch):
    """What was sealed by one who was given keys an hour ago, another one opens who is given the next ones."""
    from pysock.engine.native import tls as native  # noqa: PLC0415  # it needs the extension

    monkeypatch.setattr(native, "_of_all", [])
    keys, client, went_on = bytes(range(SIZE)), TLS(ca=certificates().ca, name="localhost"), []
    for back in (2, 1):
        given.take({"keys": keys.hex(), "period": time.monotonic_ns() // PERIOD - back})
        keys = next_keys(keys)
        native._of_all.clear()
        server = pysock.Server("tls://127.0.0.1:0", tls=TLS(certificates().server), backend="native")
        server.service(lambda client, request: b"%d" % client.tls.resumed)
        with server:
            for session in list(client._sessions.values()):
                client.remember(_key(server.addresses[0], client), session)
            with pysock.connect(server.addresses[0], tls=client) as one:
                went_on.append(one.request(b""))
    assert went_on == [b"0", b"1"]


def test_a_client_goes_on_with_its_session_at_any_worker():
    """Also at those of a reload, of which none was there when it began."""
    address = f"tls://127.0.0.1:0?cert={certificates().server}"
    tls = TLS(ca=certificates().ca)
    with Crew(address, "--workers", "2", PYSOCK_BACKEND="native") as crew:
        resumed: dict[int, list[bool]] = {}

        def visit(stack):
            client = stack.enter_context(pysock.connect(crew.address.partition("?")[0], tls=tls))
            _, _, pid = json.loads(client.request(b"which"))
            resumed.setdefault(pid, []).append(client.tls.resumed)

        with ExitStack() as stack:  # who has more clients than the others leaves them the next one
            wait_for(lambda: visit(stack) or len(resumed) == 2)
        assert sum(map(len, resumed.values())) - 1 == sum(sum(each) for each in resumed.values())
        old = set(resumed)
        crew.signal(signal.SIGHUP)
        wait_for(lambda: not any(map(is_alive, old)))
        with ExitStack() as stack:
            visit(stack)
        (new,) = set(resumed) - old
        assert resumed[new] == [True]
        assert crew.stopped()[0] == 0
