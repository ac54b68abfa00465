"""A bus that stops, freezes, dies or hears rubbish, and nodes that are too slow for it: on every one."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress

import pytest
from support import run_python, wait_for

from pysock.cluster.bus.contract import BusState, Outcome
from pysock.errors import BusDown


def test_subscriptions_survive_a_cut_and_nothing_old_is_said_after_it(bus_engine, bus_node):
    one, other = bus_node(), bus_node()
    other.hear("a", bytes.upper)
    other.hear("q", bytes.lower, queue=True)
    other.settle()
    bus_engine.cut([one, other])
    for call in (one.say, one.begin):
        with pytest.raises(BusDown, match="is down"):
            call("a", b"said while it was down")
    bus_engine.mend()
    for each in (one, other):
        each.wait(BusState.CONNECTED)
        assert each.states == [BusState.CONNECTED, BusState.LOST, BusState.CONNECTED]
    other.settle()
    assert one.ask("a", b"new") == (Outcome.ANSWERED, b"NEW")
    assert one.ask("q", b"NEW") == (Outcome.ANSWERED, b"new")
    assert other.heard["a"] == [b"new"]


def test_requests_that_wait_are_lost_with_the_bus(bus_engine, bus_node):
    one, other = bus_node(), bus_node()
    other.hear("silent")
    other.settle()
    ends = one.begin("silent", b"1", 30.0)
    other.got("silent", 1)
    assert ends == []
    bus_engine.cut([one])
    assert ends == [(Outcome.LOST, b"")]


def test_what_was_subscribed_and_ended_while_it_was_down_holds_afterwards(bus_engine, bus_node):
    one = bus_node()
    ended = one.hear("old")
    one.settle()
    bus_engine.cut([one])
    one.hear("new")
    ended.end()
    bus_engine.mend()
    one.wait(BusState.CONNECTED)
    for word in ("old", "new"):
        one.say(word, b"x")
    one.settle()
    assert (one.heard["old"], one.heard["new"]) == ([], [b"x"])


def test_a_bus_that_takes_nothing_never_makes_anybody_wait(bus_engine, bus_node):
    """It is frozen. What is published waits, up to a limit; then each call fails, as fast as before."""
    one = bus_node()
    payload = b"x" * (one.bus.max_payload // 2)
    bus_engine.freeze()
    took = []

    def flood():
        for _ in range(2000):
            begin = time.monotonic()
            try:
                one.say("a", payload)
            finally:
                took.append(time.monotonic() - begin)

    with pytest.raises(BusDown, match=r"takes no more|messages to oneself"):
        flood()
    assert max(took) < 0.5
    one.bus.reconnect()
    one.wait(BusState.LOST)
    bus_engine.mend()
    one.wait(BusState.CONNECTED)
    one.settle()


@pytest.mark.slow
def test_a_bus_that_has_frozen_is_noticed(bus_engine, bus_node):
    one = bus_node()
    bus_engine.freeze()
    begin = time.monotonic()
    one.wait(BusState.LOST)
    assert time.monotonic() - begin < 7
    bus_engine.mend()
    one.wait(BusState.CONNECTED)


def test_a_node_that_is_too_slow_is_cut_and_comes_back(bus_engine, bus_node):
    """It may lose what it is too slow for; whoever publishes is not held up, and others hear everything."""
    one, slow = bus_node(), bus_node()
    holding, held = threading.Event(), threading.Event()

    def hold(_heard):
        held.set()
        holding.wait(20)

    slow.bus.subscribe(f"{slow.prefix}.flood", hold)
    one.hear("flood")
    for each in (slow, one):
        each.settle()
    payload = b"x" * one.bus.max_payload
    for number in range(120):
        one.say("flood", payload)
        one.got("flood", number + 1)
    assert held.is_set()
    holding.set()
    wait_for(lambda: slow.bus.dropped, "to be told that something was lost", timeout=20)
    slow.wait(BusState.CONNECTED)
    slow.settle()


def test_foreign_bytes_are_dropped(bus_engine, bus_node, bus_prefix):
    one = bus_node()
    one.hear("a", bytes.upper)
    one.hear("q", bytes.upper, queue=True)
    one.settle()
    bus_engine.say_rubbish(one)
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")
    assert one.ask("q", b"x") == (Outcome.ANSWERED, b"X")
    assert one.states == [BusState.CONNECTED]


def test_a_check_tells_of_the_bus(bus_engine, bus_node, bus_prefix):
    one = bus_node(start=False)
    report = one.bus.check((f"{bus_prefix}.a", f"{bus_prefix}.b"), 5.0)
    assert report.kind == bus_engine.kind
    assert 0 < report.round_trip < 1
    assert report.max_payload > 1000
    assert report.findings == ()
    assert any(letter.isdigit() for letter in report.server), report.server


def test_a_check_of_a_frozen_bus_says_so_in_time(bus_engine, bus_node):
    one = bus_node(start=False)
    bus_engine.freeze()
    begin = time.monotonic()
    with pytest.raises(BusDown, match=r"can't be used: .*tried for 0.5 seconds"):
        one.bus.check((), 0.5)
    assert time.monotonic() - begin < 3


def peers():
    """To whom this process has connections."""
    found = []
    for number in range(3, 1000):
        with suppress(OSError):
            sock = socket.socket(fileno=number)
            try:
                found.append(sock.getpeername())
            finally:
                sock.detach()
    return [peer for peer in found if peer]


def test_a_forked_child_leaves_the_parents_bus_alone_and_keeps_no_connection_to_it(bus_node):
    before = peers()
    one = bus_node()
    one.hear("a", bytes.upper)
    one.settle()
    assert len(peers()) > len(before)
    child = os.fork()
    if not child:
        status = 1
        try:
            one.say("a", b"")
        except BusDown as error:
            status = 0 if "forked child" in str(error) and len(peers()) <= len(before) else 2
        one.bus.close()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    one.settle()
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")


_PIPE = """
import os, signal, sys, threading
from pysock.cluster.bus.choice import bus_of
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
def broken(state):
    end, pipe = os.pipe()
    os.close(end)
    try:
        os.write(pipe, b"x")
    except BrokenPipeError:
        print("lives", flush=True)
        done.set()
done, bus = threading.Event(), bus_of(sys.argv[1], node="n")
bus.start(broken)
done.wait(20)
bus.close()
"""


def test_what_is_sent_to_a_bus_that_has_gone_kills_no_program(bus_engine):
    """Where the signal SIGPIPE does that by default."""
    run = run_python(_PIPE, bus_engine.url)
    assert (run.returncode, run.stdout.split()[0]) == (0, "lives"), run
