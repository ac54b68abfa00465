"""The example ``presence``: its nodes, and the story that it tells on every bus."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack

import pytest
from buses import ENGINES
from programs import run
from support import wait_for

import pysock
from pysock.examples import presence

STORY = r"""the bus is (local|nats|redis):\S+; nodes a, b, c start

Anna and dora are at node a, bert is at b, and carl at c\.
(.* anna's node knows: .*\n)*.* anna's node knows: nodes a b c, clients anna@a bert@b carl@c dora@a
.* all four have heard 'anna: hello'
.* anna whispers to bert\. Has it arrived\? yes

Node b is killed\.
(.* anna's node knows: nodes a b\?? c, .*\n)*.* anna's node knows: nodes a c, clients anna@a bert@[ac] carl@c dora@a

Bert is back, at node [ac]\.
.* all four have heard 'bert: what was that\?'
.* carl whispers to bert\. Has it arrived\? yes
.* carl whispers to emil\. Has it arrived\? surely not: nobody is called so
"""


def example(*options, timeout=30.0, **changes):
    done = run(sys.executable, "-m", "pysock.examples.presence", *options, timeout=timeout, **changes)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("bus", ["local", "nats", "redis", "url"])
def test_the_story(bus, bus_engines):
    if bus in ("nats", "redis"):
        bus_engines(bus)  # skips where it isn't installed
    code, out, errors = example("--bus", bus_engines("nats").url if bus == "url" else bus)
    assert (code, errors) == (0, "")
    assert re.fullmatch(STORY, out), out


def test_nodes_of_the_room(socket_dir, backend, monkeypatch):
    monkeypatch.setenv("PYSOCK_BACKEND", backend)
    bus = f"local:{socket_dir}/bus.sock"
    with ExitStack() as stack:
        nodes = [presence.make_server([f"unix:{socket_dir}/{name}"], bus, name) for name in "ab"]
        for node in nodes:
            stack.enter_context(node)
        anna, bert = (
            presence.Person(name, str(node.addresses[0])) for name, node in zip(("anna", "bert"), nodes, strict=True)
        )
        stack.callback(anna.client.close)
        stack.callback(bert.client.close)
        story = presence.Story({"anna": anna, "bert": bert})
        assert story.watch_until("nodes a b, clients anna@(a) bert@b")[1] == "a"
        wait_for(lambda: anna.whisper("bert", "psst") == "yes")
        wait_for(lambda: "anna whispers: psst" in bert.heard)
        assert anna.whisper("emil", "psst") == "surely not: nobody is called so"


def test_a_server_that_is_not_installed(tmp_path):
    code, out, errors = example("--bus", "redis", PATH=str(tmp_path))
    assert (code, out) == (1, "")
    assert errors == "presence.py: redis-server isn't installed: install it, or give the URL of one that runs\n"


def test_a_wrong_bus_is_told_by_the_nodes():
    code, out, errors = example("--bus", "amqp://host")
    assert code == 1
    assert out.startswith("the bus is amqp://host;")
    assert "must begin with the kind of the bus" in errors
    assert "presence.py: a node hasn't come to serve\n" in errors


def test_one_node_without_its_bus(socket_dir, monkeypatch):
    monkeypatch.setattr(presence, "PATIENCE", 0.1)
    with pytest.raises(pysock.BusDown, match="can't do without"):
        presence.make_server([f"unix:{socket_dir}/s"], "redis://127.0.0.1:1", "a").start()
    assert set(ENGINES) == {"local", "nats", "redis"}  # all of which the example knows
