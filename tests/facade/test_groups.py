"""Groups: who is in one, from when to when, and what is sent to them."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import wire
from support import plug, wait_for

import pysock
from pysock import Limits
from pysock.directory.groups import EMPTY_MAX


@pytest.fixture
def server(make_server, address):
    """A server whose clients may say which group they join or leave, or send to."""
    server = make_server(address)

    @server.service
    def order(client, request):
        what, _, group = request.decode().partition(" ")
        if what == "join":
            client.join(group)
        elif what == "leave":
            client.leave(group)
        else:
            return b"%d" % server.clients.group(group).send(what.encode())
        return " ".join(client.groups).encode()

    with server:
        yield server


@pytest.fixture
def join(server) -> Iterator:
    """``join(name, *groups)``: a connected client, and its peer."""
    peers = []

    def join(name, *groups):
        peers.append(wire.let_in(server, name=name.encode()))
        client = server.clients.by_name(name)
        for group in groups:
            client.join(group)
        return client, peers[-1]

    yield join
    for peer in peers:
        peer.close()


def ask(peer, text, number=1):
    """The answer, whatever is pushed before it."""
    peer.send(wire.srm(text.encode(), number))
    while (answer := wire.next_frame(peer)).kind == wire.PUSH:
        pass
    assert answer.kind in {wire.REPLY, wire.ERROR}
    return answer.payload.decode()


def test_who_is_in_a_group(server, join):
    (anna, _), (bert, _), (carl, _) = join("anna", "red", "blue"), join("bert", "red"), join("carl")
    red, blue = server.clients.group("red"), server.clients.group("blue")
    assert (list(red), list(blue)) == ([anna, bert], [anna])
    assert (len(red), len(blue)) == (2, 1)
    assert bert in red
    assert carl not in red
    assert "bert" not in red
    assert (anna.groups, bert.groups, carl.groups) == (("red", "blue"), ("red",), ())
    assert repr(red) == "<Group 'red' of 2>"
    assert red.name == "red"
    anna.join("red")
    bert.leave("blue")
    bert.leave("green")
    assert list(red) == [anna, bert]
    anna.leave("red")
    carl.join("red")
    anna.join("red")
    assert (list(red), anna.groups) == ([bert, carl, anna], ("blue", "red"))
    assert isinstance(red, pysock.Group)


def test_what_is_sent_to_a_group(server, join):
    (_, one), (_, two), (_, three) = join("one", "red"), join("two", "red", "blue"), join("three", "blue")
    assert server.clients.group("red").send(b"to red") == 2
    assert server.clients.group("blue").send(memoryview(b"to blue")) == 2
    assert server.clients.broadcast(b"to all") == 3
    for peer, words in ((one, ("red", "all")), (two, ("red", "blue", "all")), (three, ("blue", "all"))):
        for word in words:
            assert wire.next_frame(peer) == wire.pushed(f"to {word}".encode())


def test_handlers_do_all_of_it(server, join):
    _, one = join("one")
    _, two = join("two")
    assert ask(one, "join red") == "red"
    assert ask(two, "join blue") == "blue"
    assert ask(two, "join red") == "blue red"
    two.send(wire.srm(b"hello red", 7))
    assert [wire.next_frame(two), wire.next_frame(two)] == [wire.pushed(b"hello"), wire.replied(b"2", 7)]
    assert wire.next_frame(one) == wire.pushed(b"hello")
    assert ask(two, "leave red") == "blue"
    assert ask(two, "again red") == "1"
    assert wire.next_frame(one) == wire.pushed(b"again")


def test_a_group_that_nobody_is_in(server, join):
    anna, peer = join("anna", "red")
    with pytest.raises(KeyError, match="nobody is in a group 'rot', nor has been: a client is put into it by join"):
        server.clients.group("rot")
    assert ask(peer, "x green") == "KeyError"
    red = server.clients.group("red")
    anna.leave("red")
    for group in (red, server.clients.group("red")):
        assert (len(group), list(group), bool(group), group.send(b"x")) == (0, [], False, 0)
    anna.join("red")
    assert list(red) == [anna]


def test_names_of_empty_groups_are_forgotten_at_last(server, join):
    anna, _ = join("anna", "first")
    first = server.clients.group("first")
    anna.leave("first")
    for number in range(EMPTY_MAX):
        assert "first" in {group.name for group in (server.clients.group("first"),)}
        anna.join(f"g{number}")
        anna.leave(f"g{number}")
    with pytest.raises(KeyError):
        server.clients.group("first")
    assert server.clients.group("g0").send(b"x") == 0
    assert first.send(b"x") == 0
    anna.join("first")
    assert first.send(b"x") == 1


@pytest.mark.parametrize("how", ["close", "leave", "violation", "server"])
def test_a_group_is_left_with_the_connection(make_server, address, how):
    """Who is told of the end still sees which groups it were."""
    told = []
    server = make_server(address)
    server.on_disconnect(lambda client, reason: told.append((client.name, client.groups, list(red))))
    with server, wire.let_in(server, name=b"anna") as peer, wire.let_in(server, name=b"bert"):
        anna, bert = server.clients.by_name("anna"), server.clients.by_name("bert")
        for client, name in ((anna, "red"), (anna, "blue"), (bert, "red")):
            client.join(name)
        red = server.clients.group("red")
        if how == "close":
            peer.close()
        elif how == "server":
            anna.close()
        else:
            peer.send(wire.BYE_FRAME if how == "leave" else wire.cir())
        wait_for(lambda: told)
        assert told == [("anna", ("red", "blue"), [bert])]
        assert anna.groups == ("red", "blue")
        assert len(server.clients.group("blue")) == 0
        with pytest.raises(pysock.ConnectionLost, match="isn't connected any more: it can't join 'red'"):
            anna.join("red")
        anna.leave("red")
        assert list(red) == [bert]
        told.clear()
    assert told == [("bert", ("red",), [])]


def test_a_client_that_no_handler_saw_leaves_its_groups_too(server, join):
    """Also without a hook that wants to hear of it."""
    _, peer = join("anna", "red")
    red = server.clients.group("red")
    assert len(red) == 1
    peer.close()
    wait_for(lambda: not len(red))


def test_groups_in_the_connect_hook(make_server, address):
    """What the hook sends to a group that it has put the client into comes behind CIR_ACCEPTED; who is refused is in no
    group.
    """
    server = make_server(address)

    @server.on_connect
    def greet(client):
        client.join("all")
        assert server.clients.group("all").send(b"here is " + client.name.encode()) == len(server.clients.group("all"))
        return client.name != "nobody"

    with server, wire.let_in(server, name=b"anna") as anna:
        assert wire.next_frame(anna) == wire.pushed(b"here is anna")
        with wire.dial(server) as nobody:
            nobody.send(wire.cir(name=b"nobody"))
            assert nobody.frame()[0] == wire.CIR_REFUSED
        assert wire.next_frame(anna) == wire.pushed(b"here is nobody")
        wait_for(lambda: len(server.clients.group("all")) == 1)
        assert [client.name for client in server.clients.group("all")] == ["anna"]


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_the_other_framings_have_groups_too(make_server, address, framing):
    server = make_server(address, framing=framing)
    server.on_connect(lambda client: client.join("all"))
    message = {"u32": b"\0\0\0\2hi", "line": b"hi\n", "raw": b"hi"}[framing]
    with server, wire.dial(server) as one, wire.dial(server) as other:
        wait_for(lambda: len(server.clients) == 2)
        assert server.clients.group("all").send(b"hi") == 2
        for peer in (one, other):
            assert peer.sock.recv(100) == message


def test_what_is_sent_is_for_those_of_this_moment(make_server, address):
    """Also where another thread sends while the loop is held up: who joins later doesn't get it, who leaves does."""
    server = make_server(address)
    held, go_on = threading.Event(), threading.Event()

    @server.service
    def hold(client, request):
        held.set()
        assert go_on.wait(10)

    with server, wire.let_in(server, name=b"anna") as one, wire.let_in(server, name=b"bert") as two:
        anna, bert = server.clients.by_name("anna"), server.clients.by_name("bert")
        anna.join("red")
        red = server.clients.group("red")
        one.send(wire.srm(b"", 1))
        assert held.wait(10)
        assert red.send(b"1") == 1
        bert.join("red")
        assert red.send(b"2") == 2
        anna.leave("red")
        assert red.send(b"3") == 1
        go_on.set()
        assert wire.next_frame(one) == wire.replied(b"", 1)
        assert [wire.next_frame(one) for _ in range(2)] == [wire.pushed(b"1"), wire.pushed(b"2")]
        assert [wire.next_frame(two) for _ in range(2)] == [wire.pushed(b"2"), wire.pushed(b"3")]


def test_a_member_that_is_closed_by_what_it_is_sent(make_server, address):
    """It doesn't read, and goes in the middle of a send; the others get what they are sent, once."""
    server = make_server(address, limits=Limits(output_pause=1000, output_drop=1_500_000))
    gone = []
    server.on_disconnect(
        lambda client, reason: gone.append((client.name, str(reason), server.clients.group("all").send(b"!")))
    )
    with server:
        peers = [wire.let_in(server, name=b"c%d" % number) for number in range(5)]
        for number in range(5):
            server.clients.by_name(f"c{number}").join("all")
        group, payload, others = server.clients.group("all"), bytes(500_000), (*peers[:2], *peers[3:])
        got = {peer: [] for peer in others}
        while not gone:
            assert len(got[peers[0]]) < 60
            group.send(payload)
            for peer in others:
                got[peer].append(wire.next_frame(peer))
        assert gone == [("c2", "over a limit", 4)]
        for peer, frames in got.items():
            frames.append(wire.next_frame(peer))  # each time one, and now that of the hook
            assert sorted(frames) == [wire.pushed(payload)] * (len(frames) - 1) + [wire.pushed(b"!")]
        assert [client.name for client in group] == ["c0", "c1", "c3", "c4"]
        for peer in peers:
            peer.close()


def test_a_member_that_takes_less_is_left_out(server, join):
    join("large", "all")
    with wire.let_in(server, wire.field(wire.MAX_PAYLOAD, (100).to_bytes(4, "big")), name=b"small") as small:
        server.clients.by_name("small").join("all")
        assert server.clients.group("all").send(bytes(101)) == 1
        assert server.clients.group("all").send(bytes(100)) == 2
        assert wire.next_frame(small) == wire.pushed(bytes(100))
        with pytest.raises(pysock.FrameTooLarge, match="max_payload"):
            server.clients.group("all").send(bytes(server.limits.max_payload + 1))
        with pytest.raises(TypeError):
            server.clients.group("all").send("text")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [("", ValueError, "a group's name must not be empty"), (b"red", TypeError, "a group's name is a str, not b'red'")],
)
def test_what_is_no_name(server, join, name, error, words):
    anna, _ = join("anna")
    for use in (anna.join, anna.leave, server.clients.group):
        with pytest.raises(error, match=words):
            use(name)
    assert anna.groups == ()


def test_by_hand_there_are_no_groups(listening):
    with plug(listening.address), listening.accept() as data:
        assert data.groups == ()
        data.leave("red")
        with pytest.raises(io.UnsupportedOperation, match="servers have groups"):
            data.join("red")


def test_any_thread_may(server, join):
    """Threads put clients into groups, take them out, send and look, while clients come and go."""
    names, over, wrong = ("red", "blue", "green"), threading.Event(), []

    def play(seed):
        chance = random.Random(seed)
        try:
            while not over.wait(0.001):  # else a busy machine's clients are dropped for what they can't read in time
                clients = list(server.clients.values())
                group = chance.choice(names)
                if clients:
                    client = chance.choice(clients)
                    with suppress(pysock.ConnectionLost):
                        (client.join if chance.random() < 0.6 and group != "red" else client.leave)(group)
                with suppress(KeyError):
                    found = server.clients.group(group)
                    assert 0 <= found.send(b"x" * chance.randrange(2000)) <= 12
                    assert len(list(found)) <= 12
        except Exception as error:  # it is a thread's, and looked at below
            wrong.append(error)

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(20):
            with wire.let_in(server, name=b"t%d" % turn) as peer:
                for _ in range(5):
                    assert ask(peer, "hello green") in {"0", "1", "2", "KeyError"}
                    ask(peer, "join red")
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert wrong == []
    wait_for(lambda: not server.clients)
    for name in names:
        with suppress(KeyError):
            assert list(server.clients.group(name)) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_forked_child_they_are_the_parents(server, join):
    anna, peer = join("anna", "red")
    red = server.clients.group("red")
    child = os.fork()
    if not child:
        status = 0
        for use in (
            lambda: anna.join("blue"),
            lambda: red.send(b"x"),
            lambda: len(red),
            lambda: server.clients.group("red"),
        ):
            with suppress(pysock.PysockError):
                use()
                status = 1
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert red.send(b"from the parent") == 1
    assert wire.next_frame(peer) == wire.pushed(b"from the parent")
