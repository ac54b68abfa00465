"""Clients that move from one engine to another: both sides of the engine contract, in one process."""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import contextmanager

import pytest
from conftest import native_is_missing
from engine_alone import Running, eventually, reply, srm, u32
from proxying import paths, tcp4, tlv, v2

from pysock.engine.contract import Service
from pysock.engine.proxies import Proxies
from pysock.handover.rows import CIR, FRAME, IDLE, OUTPUT, decode_rows, encode_rows
from pysock.wire.challenge import encode_proof
from pysock.wire.cir import encode_cir
from pysock.wire.features import FEATURES
from pysock.wire.format import ErrorCode, Framing, Kind, encode

#: From which engine to which; the native one is among them when it can.
PAIRS = [("pure", "pure")]
if not native_is_missing():
    PAIRS += [("native", "pure"), ("pure", "native"), ("native", "native")]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request):
    return request.param


class Side(Running):
    """One of the two engines; what is done to it is done in its loop's thread."""

    def do(self, function, *values):
        """What it returns, or raises, in the loop's thread."""
        done, result = threading.Event(), []

        def act():
            try:
                result.append((function(*values), None))
            except Exception as error:
                result.append((None, error))
            done.set()

        assert self.engine.call_later(act)
        assert done.wait(10)
        value, error = result[0]
        if error is not None:
            raise error
        return value


@contextmanager
def sides(tmp_path, pair, **options):
    """The old one, and the new one, each in a thread."""
    made = []
    try:
        for number, backend in enumerate(pair):
            made.append(Side(str(tmp_path / str(number)), backend=backend, **_copied(options)))
            made[-1].thread.start()
        yield made
    finally:
        for side in made:
            side.stop(0)
            side.engine.close()
            side.master.close()
            for peer in side.peers:
                peer.sock.close()


def _copied(options):
    return {key: dict(value) if isinstance(value, dict) else value for key, value in options.items()}


def take_over(old, new, ids=None):
    """All of them, or these; as two processes would, each with descriptors of its own."""
    old.do(old.engine.freeze)
    held = old.do(old.engine.hold)
    rows, fds = old.do(old.engine.pack, held if ids is None else ids)
    copies = [os.dup(fd) for fd in fds]
    added = new.do(new.engine.add, rows, copies)
    new.do(new.engine.activate)
    old.do(old.engine.discard, added)
    return decode_rows(rows)


def test_an_idle_client_is_served_by_the_other_engine(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        peer = old.peer()
        client_id = peer.let_in(name="ann", software="x 1", max_payload=900)
        peer.send(srm(b"one"))
        peer.expect(reply(b"one"))
        before = old.engine.info(client_id)
        (row,) = take_over(old, new)
        peer.send(srm(b"two"))
        peer.expect(reply(b"two"))
        after = new.engine.info(client_id)
        assert (row.name, row.software, row.max_reply) == ("ann", "x 1", 900)
        assert (after.name, after.software, after.pid, after.uid) == ("ann", "x 1", os.getpid(), os.getuid())
        assert after.connected_at == pytest.approx(before.connected_at, abs=1e-3)
        assert (after.requests, after.frames_in, after.frames_out) == (2, 3, 3)
        assert (after.bytes_in, after.bytes_out) == (before.bytes_in + 15, before.bytes_out + 15)
        assert new.engine.find("ann") == client_id
        assert new.engine.client_ids() == [client_id]
        assert old.engine.client_ids() == []
        assert old.engine.find("ann") is None
        assert old.engine.info(client_id) is None
        assert old.gone == []
        assert old.engine.gone() == []


def test_the_order_of_clients_and_who_came_last_under_a_name(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        ids = [old.peer().let_in(name="same") for _ in range(5)]
        take_over(old, new)
        assert (old.do(old.engine.moved), new.do(new.engine.moved)) == ((0, 5), (5, 0))
        assert new.engine.client_ids() == ids
        assert new.engine.find("same") == ids[-1]


FRAMES = encode(Kind.PING, b"pi", request_id=1) + srm(b"hello" * 3, request_id=2) + srm(b"", request_id=3)
ANSWERS = encode(Kind.PONG, b"pi", request_id=1) + reply(b"hello" * 3, 2) + reply(b"", 3)


def test_a_frame_that_is_cut_at_every_byte(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        cuts = range(1, len(FRAMES))
        peers = []
        for cut in cuts:
            peer = old.peer()
            client_id = peer.let_in()
            before = old.engine.info(client_id).bytes_in
            peer.send(FRAMES[:cut])
            eventually(lambda: old.engine.info(client_id).bytes_in == before + cut)  # noqa: B023
            peers.append(peer)
        take_over(old, new)
        for cut, peer in zip(cuts, peers, strict=True):
            peer.send(FRAMES[cut:])
            peer.expect(ANSWERS)


@pytest.mark.parametrize("framing", [Framing.U32, Framing.LINE])
def test_messages_without_frames_cut_at_every_byte(tmp_path, pair, framing):
    data = u32(b"abc", b"", b"de") if framing is Framing.U32 else b"abc\n\nde\n"
    with sides(tmp_path, pair, framing=framing) as (old, new):
        peers = []
        for cut in range(1, len(data)):
            peer = old.peer()
            peer.send(data[:cut])
            peers.append((peer, cut))
        eventually(lambda: sum(row.bytes_in for row in old.engine.rows()) == sum(cut for _, cut in peers))
        take_over(old, new)
        for peer, cut in peers:
            peer.send(data[cut:])
            peer.expect(data)


def test_raw_moves(tmp_path, pair):
    with sides(tmp_path, pair, framing=Framing.RAW) as (old, new):
        peer = old.peer()
        peer.send(b"one")
        peer.expect(b"one")
        take_over(old, new)
        peer.send(b"two")
        peer.expect(b"two")


def test_an_oversized_payload_is_thrown_away_on_both_sides(tmp_path, pair):
    with sides(tmp_path, pair, limits={"max_payload": 1000}) as (old, new):
        peer = old.peer()
        peer.let_in()
        peer.send(srm(b"x" * 5000)[:2000])
        assert peer.frame().code == ErrorCode.PAYLOAD_TOO_LARGE
        (row,) = take_over(old, new)
        assert row.skip == 5012 - 2000
        peer.send((srm(b"x" * 5000) + srm(b"after"))[2000:])
        peer.expect(reply(b"after"))


def test_requests_that_were_read_and_wait_are_served_first_and_in_order(tmp_path, pair):
    """The client takes nothing, so it isn't read; what was read by then waits."""
    big = b"r" * 50_000
    with sides(tmp_path, pair, handler=lambda _client, request: request + big) as (old, new):
        peer = old.peer()
        client_id = peer.let_in()
        count = 400
        threading.Thread(
            target=lambda: peer.send(*(srm(b"%04d" % number, request_id=number) for number in range(count)))
        ).start()
        eventually(lambda: old.engine.info(client_id).queued > 1_000_000)
        (row,) = take_over(old, new)
        assert row.output
        for number in range(count):
            frame = peer.frame()
            assert (frame.request_id, frame.payload) == (number, b"%04d" % number + big)
        assert new.engine.info(client_id).requests == count


def test_deadlines_go_on_from_what_was_left(tmp_path, pair):
    limits = {"cir_timeout": 50.0, "frame_timeout": 60.0, "idle_timeout": 70.0, "output_timeout": 80.0}
    with sides(tmp_path, pair, limits=limits, handler=lambda *_: b"x" * 4_000_000) as (old, new):
        silent, partial, slow = old.peer(), old.peer(), old.peer()
        partial_id, slow_id = partial.let_in(), slow.let_in()
        before = old.engine.info(partial_id).bytes_in
        partial.send(srm(b"abc")[:5])
        slow.send(srm())
        eventually(lambda: old.engine.info(partial_id).bytes_in > before)
        eventually(lambda: old.engine.info(slow_id).queued)
        rows = {row.client_id: dict(row.deadlines) for row in take_over(old, new)}
        waits = next(left for client_id, left in rows.items() if client_id not in {partial_id, slow_id})
        assert 40_000 < waits[CIR] <= 50_000
        assert 50_000 < rows[partial_id][FRAME] <= 60_000
        assert 60_000 < rows[partial_id][IDLE] <= 70_000
        assert 70_000 < rows[slow_id][OUTPUT] <= 80_000
        silent.let_in()
        new.do(new.engine.freeze)
        held = new.do(new.engine.hold)
        again = {row.client_id: dict(row.deadlines) for row in decode_rows(new.do(new.engine.pack, held)[0])}
        assert again[partial_id][FRAME] <= rows[partial_id][FRAME]
        assert again[slow_id][OUTPUT] <= rows[slow_id][OUTPUT]
        new.do(new.engine.thaw)


def test_a_deadline_that_has_nearly_passed_ends_it_on_the_new_side(tmp_path, pair):
    with sides(tmp_path, pair, limits={"frame_timeout": 30.0}) as (old, new):
        peer = old.peer()
        peer.let_in()
        peer.send(srm(b"abc")[:5])
        old.do(old.engine.freeze)
        eventually(lambda: FRAME in dict(_row_of(old).deadlines))
        rows, fds = old.do(old.engine.pack, old.engine.client_ids())
        (row,) = decode_rows(rows)
        hurried = encode_rows([_changed(row, deadlines=((FRAME, 20),))])
        added = new.do(new.engine.add, hurried, [os.dup(fds[0])])
        time.sleep(0.1)
        assert new.engine.client_ids() == added  # it sleeps
        new.do(new.engine.activate)
        old.do(old.engine.discard, added)
        eventually(lambda: new.gone)
        assert new.gone[0][1] == "timed out"


def _row_of(side):
    """Hold all, look, and let go again."""
    held = side.do(side.engine.hold)
    (row,) = decode_rows(side.do(side.engine.pack, held or side.engine.client_ids())[0])
    if FRAME not in dict(row.deadlines):
        side.do(side.engine.thaw)
        side.do(side.engine.freeze)
    return row


def _changed(row, **values):
    names = type(row).__dataclass_fields__
    return type(row)(**({name: getattr(row, name) for name in names} | values))


def test_a_challenged_client_proves_itself_to_the_new_side(tmp_path, pair):
    mac = b"m" * 32
    callbacks = {
        "challenge": lambda _nonce, _name: (b"", mac),
        "prove": lambda expected, got: expected == got,
    }
    with sides(tmp_path, pair, callbacks=callbacks) as (old, new):
        peer = old.peer()
        peer.send(encode_cir(name="ann", nonce=b"n" * 32, features=FEATURES))
        assert peer.frame().kind == Kind.CHALLENGE
        (row,) = take_over(old, new)
        assert (row.state, row.expected, row.name) == (2, mac, "ann")
        assert new.engine.client_ids() == []
        peer.send(encode(Kind.PROOF, encode_proof(mac)))
        assert peer.frame().kind == Kind.CIR_ACCEPTED
        assert new.engine.find("ann") == row.client_id


def test_pushes_to_a_held_client_move_with_it_and_none_to_a_packed_one(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        peer = old.peer()
        client_id = peer.let_in()
        old.do(old.engine.freeze)
        old.do(old.engine.hold)
        assert old.engine.push(client_id, b"while held")
        assert old.do(old.engine.push, client_id, b"and again")
        rows, fds = old.do(old.engine.pack, [client_id])
        assert old.do(old.engine.push, client_id, b"too late") is False
        assert old.do(old.engine.disconnect, client_id) is False
        added = new.do(new.engine.add, rows, [os.dup(fds[0])])
        new.do(new.engine.activate)
        old.do(old.engine.discard, added)
        peer.send(srm(b"x"))
        peer.expect(encode(Kind.PUSH, b"while held"), encode(Kind.PUSH, b"and again"), reply(b"x"))


def test_a_thaw_serves_them_from_where_they_were(tmp_path, pair):
    with sides(tmp_path, pair) as (old, _):
        peer = old.peer()
        client_id = peer.let_in()
        peer.send(FRAMES[:8])
        old.do(old.engine.freeze)
        assert old.do(old.engine.hold) == [client_id]
        old.do(old.engine.pack, [client_id])
        peer.send(FRAMES[8:])
        newcomer = old.peer()
        for _ in range(3):
            before = old.do(old.engine.info, client_id).bytes_in
        assert before == old.do(old.engine.info, client_id).bytes_in
        assert old.engine.stats().accepted == 1
        old.do(old.engine.thaw)
        peer.expect(ANSWERS)
        newcomer.let_in()


def test_a_batch_that_waits_keeps_a_client_on_the_old_side_until_it_is_answered(tmp_path, pair):
    services = [Service("", lambda _clients, requests: list(requests), batch=True, max_batch=2, max_wait=60.0)]
    with sides(tmp_path, pair, services=services) as (old, new):
        busy, other = old.peer(), old.peer()
        busy_id, other_id = busy.let_in(), other.let_in()
        busy.send(srm(b"waits"))
        eventually(lambda: old.engine.info(busy_id).in_flight == 1)
        assert [row.client_id for row in take_over(old, new)] == [other_id]
        old.do(old.engine.hurry)
        assert [row.client_id for row in take_over(old, new)] == [busy_id]
        busy.expect(reply(b"waits"))
        other.send(srm(b"a", request_id=1), srm(b"b", request_id=2))
        other.expect(reply(b"a", 1), reply(b"b", 2))


def test_places_that_were_used_are_left_to_those_that_move(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        first, second = old.peer(), old.peer()
        first.let_in()
        second_id = second.let_in()
        first.sock.close()
        eventually(lambda: old.gone)
        slots, generation = old.do(old.engine.places)
        assert slots >= 2
        new.do(new.engine.reserve, slots, generation)
        newcomer = new.peer()
        assert newcomer.let_in() & 0xFFFFFF >= slots
        take_over(old, new)
        new.do(new.engine.reserve, 0)
        third_id = new.peer().let_in()
        assert third_id & 0xFFFFFF < slots
        assert third_id >> 32 > generation
        assert new.engine.info(second_id) is not None


def test_bad_rows_change_nothing(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        peer = old.peer()
        peer.let_in(name="ann")
        old.do(old.engine.freeze)
        rows, fds = old.do(lambda: old.engine.pack(old.engine.hold()))
        (row,) = decode_rows(rows)
        for data, descriptors, problem in (
            (rows[:-1], fds, "row 0: "),
            (rows, [], "row 0: there is no descriptor for it"),
            (rows + rows, fds * 2, "row 1: "),
            (encode_rows([_changed(row, listener=7)]), fds, "row 0: "),
            (encode_rows([_changed(row, features=0x80)]), fds, "row 0: "),
        ):
            with pytest.raises(ValueError, match=problem):
                new.do(new.engine.add, data, descriptors)
        if pair[1] == "pure":  # the native engine takes their word for it
            read, write = os.pipe()
            with pytest.raises(OSError, match="socket"):
                new.do(new.engine.add, rows + encode_rows([_changed(row, client_id=9 << 32 | 9)]), [fds[0], read])
            os.close(read)  # they are the caller's still
            os.close(write)
        assert new.engine.client_ids() == []
        assert new.engine.find("ann") is None
        old.do(old.engine.thaw)
        peer.send(srm())
        peer.expect(reply())


def test_a_stop_leaves_alone_who_may_be_another_s(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        packed, held = old.peer(), old.peer()
        packed_id = packed.let_in()
        held.let_in()
        old.do(old.engine.freeze)
        old.do(old.engine.hold)
        rows, fds = old.do(old.engine.pack, [packed_id])
        new.do(new.engine.add, rows, [os.dup(fds[0])])
        packed.send(srm(b"unread"))
        old.engine.stop(10.0)
        assert held.frame().kind == Kind.GOAWAY
        assert held.to_the_end() == b""
        old.thread.join(10)
        new.do(new.engine.activate)
        packed.expect(reply(b"unread"))


def test_who_sleeps_when_the_loop_ends_is_only_closed(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        peer = old.peer()
        client_id = peer.let_in()
        old.do(old.engine.freeze)
        rows, fds = old.do(lambda: old.engine.pack(old.engine.hold()))
        new.do(new.engine.add, rows, [os.dup(fds[0])])
        peer.send(srm(b"unread"))
        new.stop()
        assert new.gone == []
        old.do(old.engine.thaw)
        peer.expect(reply(b"unread"))
        assert old.engine.client_ids() == [client_id]


def test_who_goes_while_it_is_held_is_seen_to_by_who_has_it_then(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        moved, stays = old.peer(), old.peer()
        moved_id, stays_id = moved.let_in(), stays.let_in()
        old.do(old.engine.freeze)
        old.do(old.engine.hold)
        moved.sock.close()
        stays.sock.close()
        rows, fds = old.do(old.engine.pack, [moved_id])
        new.do(new.engine.add, rows, [os.dup(fds[0])])
        new.do(new.engine.activate)
        old.do(old.engine.discard, [moved_id])
        eventually(lambda: new.gone)
        assert new.gone == [(moved_id, "closed by peer")]
        assert old.gone == []
        old.do(old.engine.thaw)
        eventually(lambda: old.gone)
        assert old.gone == [(stays_id, "closed by peer")]


def test_those_that_sleep_can_be_given_up(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        peer = old.peer()
        client_id = peer.let_in()
        old.do(old.engine.freeze)
        rows, fds = old.do(old.engine.pack, old.do(old.engine.hold))
        assert new.do(new.engine.add, rows, [os.dup(fd) for fd in fds]) == [client_id]
        new.do(new.engine.discard, [client_id])
        assert new.do(new.engine.client_ids) == []
        stats = new.do(new.engine.stats)
        assert (stats.clients, stats.pending, new.do(new.engine.moved)) == (0, 0, (0, 0))
        old.do(old.engine.thaw)
        peer.send(srm(b"x"))
        peer.expect(reply(b"x"))
        old.stop()
        peer.frame()  # GOAWAY
        assert peer.to_the_end() == b""


def test_a_stop_while_they_are_packed_tells_them_where_they_stay(tmp_path, pair):
    with sides(tmp_path, pair) as (old, _):
        peer = old.peer()
        client_id = peer.let_in()
        old.do(old.engine.freeze)
        old.do(old.engine.pack, old.do(old.engine.hold))
        peer.send(srm(b"x", request_id=7))
        old.engine.stop(5.0)
        eventually(lambda: old.drained)
        assert old.do(old.engine.client_ids) == [client_id]
        old.do(old.engine.thaw)
        assert peer.frame().kind == Kind.GOAWAY
        frame = peer.frame()
        assert (frame.kind, frame.code, frame.request_id) == (Kind.ERROR, ErrorCode.SHUTTING_DOWN, 7)
        assert peer.to_the_end() == b""
        old.thread.join(4)
        assert not old.thread.is_alive()


def test_who_is_to_be_left_alone_by_now_is_read_again(tmp_path, pair):
    """Its own handler may ask it something meanwhile, and waits for the answer."""
    handles = []
    callbacks = {"defer": lambda handle, _result: handles.append(handle) or handle}
    with sides(tmp_path, pair, handler=lambda client, request: 1, callbacks=callbacks) as (old, _):
        peer = old.peer()
        client_id = peer.let_in()
        peer.send(srm())
        eventually(lambda: handles)
        assert old.do(old.engine.hold) == []
        peer.send(srm(request_id=2))
        assert old.do(old.engine.hold, [client_id]) == []
        eventually(lambda: len(handles) == 2)
        for handle in handles:
            old.do(old.engine.answer, handle, b"a")
        assert old.do(old.engine.hold) == [client_id]
        old.do(old.engine.thaw)


def test_what_is_deferred_is_answered_or_told_that_it_is_not(tmp_path, pair):
    """The work on it may go on; nobody waits for it any more."""
    ended, handles = [], []
    callbacks = {
        "defer": lambda handle, _result: handles.append(handle) or handle,
        "ended": lambda kept, why: ended.append((kept, why)) or False,
    }
    with sides(tmp_path, pair, handler=lambda *_: [], callbacks=callbacks) as (old, new):
        answered, hurried = old.peer(), old.peer()
        for peer in (answered, hurried):
            client_id = peer.let_in()
            peer.send(srm(b"x", request_id=7))
            eventually(lambda: old.engine.info(client_id).in_flight)  # noqa: B023
        assert take_over(old, new) == []
        assert old.do(old.engine.answer, handles[0], b"done")
        answered.expect(reply(b"done", 7))
        assert len(take_over(old, new)) == 1
        old.do(old.engine.hurry)
        frame = hurried.frame()
        assert (frame.kind, frame.code, frame.request_id) == (Kind.ERROR, ErrorCode.SHUTTING_DOWN, 7)
        assert len(ended) == 1
        assert len(take_over(old, new)) == 1
        assert old.do(old.engine.answer, handles[1], b"late") is False
        for peer in (answered, hurried):
            peer.send(encode(Kind.PING, request_id=3))
            peer.expect(encode(Kind.PONG, request_id=3))


def test_those_that_can_t_move_are_told_to_go(tmp_path, pair):
    with sides(tmp_path, pair) as (old, new):
        stays, moves = old.peer(), old.peer()
        stays_id, moves_id = stays.let_in(), moves.let_in()
        old.do(old.engine.freeze)
        assert old.do(old.engine.hold, [stays_id]) == [moves_id]
        stays.send(srm(b"served still"))
        stays.expect(reply(b"served still"))
        old.do(old.engine.dismiss, [stays_id])
        assert stays.frame().kind == Kind.GOAWAY
        assert stays.to_the_end() == b""
        assert [row.client_id for row in take_over(old, new, [moves_id])] == [moves_id]


def test_a_client_moves_from_generation_to_generation(tmp_path, pair):
    """Each is the process that follows the one before, of one engine or the other."""
    with sides(tmp_path, (pair * 5)[:9]) as all_of_them:
        peer = all_of_them[0].peer()
        client_id = peer.let_in(name="ann")
        for number, (old, new) in enumerate(itertools.pairwise(all_of_them)):
            peer.send(srm(b"%d" % number))
            peer.expect(reply(b"%d" % number))
            peer.send(FRAMES[:3])
            take_over(old, new)
            peer.send(FRAMES[3:])
            peer.expect(ANSWERS)
        last = all_of_them[-1].engine
        assert last.info(client_id).requests == 8 * 3
        assert last.find("ann") == client_id


def test_a_proxied_client_is_whom_the_proxy_has_said(tmp_path, pair):
    """One with a whole header, one through whose header the move goes, one that names a path."""
    with sides(tmp_path, pair, limits={"max_clients_per_ip": 2}, proxies=Proxies(3)) as (old, new):
        header, cut = v2(tcp4("192.0.2.7", 4711), tlv(0x02, b"name")), 20
        whole, begun, path = old.peer(), old.peer(), old.peer()
        whole.send(header)
        whole_id = whole.let_in()
        path.send(v2(paths(b"/run/client"), kind=0x31))
        path_id = path.let_in()
        begun.send(header[:cut])
        eventually(lambda: old.engine.stats().bytes_in >= 2 * len(header) + cut)
        before = {one: old.engine.info(one) for one in (whole_id, path_id)}
        rows = take_over(old, new)
        assert [row.input for row in rows if row.awaits_header] == [header[:cut]]
        begun.send(header[cut:])
        begun_id = begun.let_in()
        for client_id, like in ((whole_id, whole_id), (path_id, path_id), (begun_id, whole_id)):
            now = new.engine.info(client_id)
            for name in ("address", "via", "header", "pid", "uid", "gid"):
                assert getattr(now, name) == getattr(before[like], name), name
        refused = new.peer()
        refused.send(header)  # the third of its address
        assert refused.frame().kind == Kind.CIR_REFUSED
