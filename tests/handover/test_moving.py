"""Clients move from one engine to another, by rows and descriptors: ``pysock.engine.moving``."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time

import pytest
from conftest import native_is_missing
from engine_alone import Running, eventually, reply, srm, started, u32

from pysock.wire.cir import encode_cir
from pysock.wire.format import ErrorCode, Framing, Kind, encode

pytestmark = pytest.mark.skipif(native_is_missing(), reason="no native engine")
BACKEND = "native"


@pytest.fixture
def start(socket_dir):
    makes = started(socket_dir)
    start = next(makes)
    yield lambda **options: start(backend=BACKEND, **options)
    next(makes, None)


@pytest.fixture
def sleeping(socket_dir):
    """Make engines whose loop hasn't begun yet."""
    made = []

    def make(**options):
        running = Running(f"{socket_dir}/new{len(made)}", backend=BACKEND, **options)
        made.append(running)
        return running

    yield make
    for running in made:
        if running.thread.ident is not None:
            running.stop(0)
        running.engine.close()
        running.master.close()


def within(running, function):
    """Call it in the loop's thread, and return what it returns."""
    done, came = threading.Event(), []

    def call():
        try:
            came.append((function(), None))
        except BaseException as error:
            came.append((None, error))
        done.set()

    assert running.engine.call_later(call)
    assert done.wait(10)
    result, error = came[0]
    if error is not None:
        raise error
    return result


def held(old):
    """Freeze it, and hold all that can be."""
    within(old, old.engine.freeze)
    return within(old, old.engine.hold)


def given(old, ids):
    """Their rows, and copies of their descriptors, as another process gets them."""
    rows, descriptors = within(old, lambda: old.engine.pack(ids))
    return rows, [os.dup(fd) for fd in descriptors]


def moved(old, new):
    ids = held(old)
    rows, descriptors = given(old, ids)
    assert new.engine.add(rows, descriptors) == ids
    within(old, lambda: old.engine.discard(ids))
    new.engine.activate()
    new.thread.start()
    return ids


def fields(row):
    """The fields of one row by their tags."""
    (size,) = struct.unpack_from("<I", row)
    assert size == len(row) - 4
    at, found = 4, {}
    while at < len(row):
        tag, length = struct.unpack_from("<HI", row, at)
        found[tag & 0x7FFF] = row[at + 6 : at + 6 + length]
        at += 6 + length
    return found


def test_an_idle_client_goes_on_under_its_id(start, sleeping):
    old, new = start(), sleeping()
    peer = old.peer()
    client_id = peer.let_in(name="ada", software="x/1")
    peer.send(srm())
    peer.expect(reply())
    before = old.engine.info(client_id)
    assert moved(old, new) == [client_id]
    after = new.engine.info(client_id)
    assert after._replace(fd=0, idle_since=0) == before._replace(fd=0, idle_since=0)
    assert abs(after.idle_since - before.idle_since) < 1
    peer.send(srm(request_id=10))
    peer.expect(reply(request_id=10))
    assert new.engine.client_ids() == [client_id]
    assert new.engine.find("ada") == client_id
    assert new.engine.push(client_id, b"hello")
    peer.expect(encode(Kind.PUSH, b"hello"))
    assert old.engine.client_ids() == []
    assert (old.gone, new.gone, old.engine.gone()) == ([], [], [])
    assert (old.engine.moved(), new.engine.moved()) == ((0, 1), (1, 0))


@pytest.mark.parametrize("framing", Framing)
def test_what_was_half_received_and_what_is_sent_meanwhile(start, sleeping, framing):
    wanted = {"framing": framing}
    old, new = start(**wanted), sleeping(**wanted)
    peer = old.peer()
    whole = {
        Framing.PYSOCK: (srm(b"a" * 100), reply(b"a" * 100), encode(Kind.PUSH, b"news")),
        Framing.U32: (u32(b"a" * 100), u32(b"a" * 100), u32(b"news")),
        Framing.LINE: (b"a" * 100 + b"\n", b"a" * 100 + b"\n", b"news\n"),
        Framing.RAW: (b"a" * 100, b"a" * 100, b"news"),
    }
    request, answer, push = whole[framing]
    if framing == Framing.PYSOCK:
        peer.let_in()
    eventually(lambda: old.engine.client_count() == 1)
    (client_id,) = old.engine.client_ids()
    cut = 0 if framing == Framing.RAW else 50
    if cut:
        before = old.engine.info(client_id).bytes_in
        peer.send(request[:cut])
        eventually(lambda: old.engine.info(client_id).bytes_in == before + cut)
    ids = held(old)
    assert ids == [client_id]
    assert old.engine.push(client_id, b"news")
    eventually(lambda: old.engine.info(client_id).queued == len(push))
    rows, descriptors = given(old, ids)
    found = fields(rows)
    assert found.get(13, b"") == request[:cut]
    assert found[15] == push
    assert new.engine.add(rows, descriptors) == ids
    within(old, lambda: old.engine.discard(ids))
    new.engine.activate()
    new.thread.start()
    peer.expect(push)
    peer.send(request[cut:])
    peer.expect(answer)


@pytest.mark.parametrize("size", [3, 12, 200, 40_000])
def test_a_frame_that_is_cut_off_anywhere(start, sleeping, size):
    old, new = start(), sleeping()
    peer = old.peer()
    client_id = peer.let_in()
    before = old.engine.info(client_id).bytes_in
    request = srm(b"b" * 50_000)
    peer.send(request[:size])
    eventually(lambda: old.engine.info(client_id).bytes_in == before + size)
    moved(old, new)
    peer.send(request[size:])
    peer.expect(reply(b"b" * 50_000))


def test_the_old_side_goes_on_as_if_nothing_had_been(start):
    old = start()
    peer = old.peer()
    client_id = peer.let_in()
    assert held(old) == [client_id]
    assert within(old, old.engine.hold) == []
    peer.send(srm())
    waits = old.peer()
    waits.send(encode_cir())
    within(old, lambda: old.engine.pack([client_id]))
    assert within(old, lambda: old.engine.push(client_id, b"lost")) is False
    assert within(old, lambda: old.engine.disconnect(client_id)) is False
    assert (old.engine.push(client_id, b"lost"), old.engine.broadcast(b"lost")) == (False, 0)  # from this thread, too
    assert old.engine.client_ids() == [client_id]
    within(old, old.engine.thaw)
    peer.expect(reply())
    assert waits.frame().kind == Kind.CIR_ACCEPTED
    assert old.engine.push(client_id, b"news")
    peer.expect(encode(Kind.PUSH, b"news"))
    assert held(old) == sorted(old.engine.client_ids())


def test_nobody_is_read_meanwhile_and_a_deadline_stands_still(start):
    old = start(limits={"cir_timeout": 0.3})
    silent = old.peer()
    eventually(lambda: old.engine.stats().pending == 1)
    ids = held(old)
    assert len(ids) == 1
    time.sleep(0.5)  # longer than it has
    assert old.engine.stats().pending == 1
    within(old, old.engine.thaw)
    silent.let_in()


def test_its_deadline_goes_on_where_it_has_gone(start, sleeping):
    old, new = start(limits={"cir_timeout": 0.4}), sleeping(limits={"cir_timeout": 0.4})
    silent = old.peer()
    eventually(lambda: old.engine.stats().pending == 1)
    moved(old, new)
    assert silent.frame().kind == Kind.CIR_REFUSED


def test_one_that_is_ended_while_it_is_held_is_not_among_them(start):
    old = start()
    peers = [old.peer() for _ in range(3)]
    ids = [peer.let_in() for peer in peers]
    assert held(old) == ids
    assert within(old, lambda: old.engine.disconnect(ids[1]))
    assert peers[1].to_the_end() == b""
    _, descriptors = within(old, lambda: old.engine.pack(ids))
    assert len(descriptors) == 2
    eventually(lambda: [client_id for client_id, _ in old.gone] == [ids[1]])
    within(old, old.engine.thaw)
    for peer in (peers[0], peers[2]):
        peer.send(srm())
        peer.expect(reply())


def test_one_that_goes_while_it_is_held_is_found_gone_later(start, sleeping):
    old, new = start(), sleeping()
    peers = [old.peer() for _ in range(2)]
    ids = [peer.let_in() for peer in peers]
    assert held(old) == ids
    peers[0].sock.close()
    rows, descriptors = given(old, ids)
    assert new.engine.add(rows, descriptors) == ids
    within(old, lambda: old.engine.discard(ids))
    new.engine.activate()
    new.thread.start()
    eventually(lambda: [client_id for client_id, _ in new.gone] == [ids[0]])
    assert old.gone == []


@pytest.mark.parametrize(("begun", "code"), [(True, ErrorCode.CANCELLED), (False, ErrorCode.SHUTTING_DOWN)])
def test_hurry_answers_what_is_in_flight(start, sleeping, begun, code):
    handles = []
    callbacks = {"defer": lambda handle, result: handles.append(handle) or handle, "ended": lambda kept, why: begun}
    old, new = start(handler=lambda client, request: 1, callbacks=callbacks), sleeping()
    peer = old.peer()
    client_id = peer.let_in()
    peer.send(srm())
    eventually(lambda: handles)
    assert held(old) == []
    within(old, old.engine.hurry)
    frame = peer.frame()
    assert (frame.kind, frame.code) == (Kind.ERROR, code)
    assert within(old, old.engine.hold) == [client_id]
    assert not within(old, lambda: old.engine.answer(handles[0], b"late"))
    rows, descriptors = given(old, [client_id])
    new.engine.add(rows, descriptors)
    within(old, lambda: old.engine.discard([client_id]))
    new.engine.activate()
    new.thread.start()
    peer.send(srm())
    peer.expect(reply())


def test_those_that_are_dismissed_are_told_and_drain(start):
    old = start()
    peer, other = old.peer(), old.peer()
    ids = [peer.let_in(), other.let_in()]
    assert held(old) == ids
    within(old, lambda: old.engine.dismiss([ids[0]]))
    assert peer.frame().kind == Kind.GOAWAY
    assert peer.to_the_end() == b""
    eventually(lambda: old.engine.client_ids() == [ids[1]])


def test_a_stop_of_a_frozen_server_leaves_those_that_are_packed(start):
    old = start()
    peer, other = old.peer(), old.peer()
    ids = [peer.let_in(), other.let_in()]
    held(old)
    _, descriptors = given(old, [ids[0]])
    old.stop(0.2)
    assert other.frame().kind == Kind.GOAWAY
    assert old.drained == 1
    assert [client_id for client_id, _ in old.gone] == [ids[1]]
    with socket.socket(fileno=descriptors[0]) as copy:  # which is as it was
        copy.setblocking(True)
        copy.sendall(b"still")
        assert peer.read(5) == b"still"


def test_a_fork_while_they_are_held(start):
    old = start()
    peer = old.peer()
    client_id = peer.let_in()
    held(old)
    child = os.fork()
    if not child:
        os._exit(len(old.engine.client_ids()))
    assert os.waitpid(child, 0)[1] == 0
    within(old, old.engine.thaw)
    peer.send(srm())
    peer.expect(reply())
    assert old.engine.client_ids() == [client_id]


def test_new_ones_get_other_places(start, sleeping):
    old, new = start(), sleeping()
    ids = [old.peer().let_in() for _ in range(3)]
    held(old)
    slots, generation = old.engine.places()
    assert slots == 3
    new.engine.reserve(slots, generation)
    new.thread.start()
    newcomer = new.peer()
    other = newcomer.let_in()
    assert other & 0xFFFFFF >= slots
    assert other >> 32 > generation
    rows, descriptors = given(old, ids)
    assert within(new, lambda: new.engine.add(rows, descriptors)) == ids
    within(new, new.engine.activate)
    within(new, lambda: new.engine.reserve(0))
    newcomer.send(srm())
    newcomer.expect(reply())
    for peer in old.peers:
        peer.send(srm())
        peer.expect(reply())
    within(old, lambda: old.engine.discard(ids))
    newcomer.sock.close()


def test_all_or_nothing(start, sleeping):
    old, new = start(), sleeping()
    ids = [old.peer().let_in() for _ in range(2)]
    held(old)
    rows, descriptors = given(old, ids)
    for wrong in (rows[:-1], rows + rows, rows[4:], rows + b"\0"):
        with pytest.raises(ValueError, match="row"):
            new.engine.add(wrong, descriptors)
    with pytest.raises(ValueError, match="more descriptors"):
        new.engine.add(rows, descriptors * 2)
    assert new.engine.stats().clients == 0
    assert new.engine.add(rows, descriptors) == ids
    with pytest.raises(ValueError, match="taken"):
        new.engine.add(rows, descriptors)
    assert new.engine.stats().clients == 2
    within(old, lambda: old.engine.discard(ids))


def test_a_place_that_the_table_has_not(start, sleeping):
    old, new = start(), sleeping(limits={"max_clients": 1})
    old.peer().let_in()
    ids = held(old)
    rows, descriptors = given(old, ids)
    at = rows.index(struct.pack("<Q", ids[0]))
    far = rows[:at] + struct.pack("<Q", 1 << 32 | 1 << 20) + rows[at + 8 :]
    with pytest.raises(OSError, match=r"[Ss]pace"):
        new.engine.add(far, descriptors)
    os.close(descriptors[0])


def test_bytes_of_another_process_are_not_believed(start, sleeping):
    old, new = start(), sleeping()
    peer = old.peer()
    peer.let_in(name="ada")
    ids = held(old)
    old.engine.push(ids[0], b"news")
    rows, descriptors = given(old, ids)
    chance = random.Random(1)
    refused = 0
    for _ in range(2000):
        wrong = bytearray(rows)
        for _ in range(chance.randrange(1, 4)):
            wrong[chance.randrange(len(wrong))] = chance.randrange(256)
        try:
            new.engine.add(bytes(wrong), [os.dup(descriptors[0])])
        except (ValueError, OSError):
            refused += 1
    assert refused > 100
    new.engine.activate()
    os.close(descriptors[0])


def test_many_at_once(start, sleeping):
    old, new = start(limits={"max_clients": 2000}), sleeping(limits={"max_clients": 2000})
    peers, ids = [], []
    for number in range(200):
        peers.append(old.peer())
        ids.append(peers[-1].let_in(name=f"{number}"))
    assert moved(old, new) == ids
    assert new.engine.client_ids() == ids
    for peer in peers:
        peer.send(srm())
    for peer in peers:
        peer.expect(reply())
