"""What a server asks its clients, on the wire: each frame byte for byte, answers of every kind, and what breaks the
rules.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import threading

import pytest
import wire
from support import wait_for
from wire import ANSWER, ANSWER_ERROR, ASK, ASK_CANCEL, Got, failed, features, let_in, next_frame

from pysock import ConnectionLost, FrameTooLarge, Limits, Overloaded, PysockError, RemoteError, RequestTimeout
from pysock.wire import texts

ASKS = features(wire.SPEAKS_DEADLINE | wire.SPEAKS_CANCEL | wire.SPEAKS_ASK)
NAMED = b"\x04roll"


def answer(payload: bytes = b"", id: int = 1) -> bytes:  # noqa: A002
    return wire.frame(ANSWER, payload, id=id)


def answer_error(code: int, text: bytes, id: int = 1) -> bytes:  # noqa: A002
    return wire.frame(ANSWER_ERROR, text, id=id, code=code)


@pytest.fixture
def server(make_server, unix_address):
    """It has started, and its limits are small."""
    one = make_server(unix_address, limits=Limits(max_asks=3, max_payload=1000))
    one.gone = []
    one.on_disconnect(lambda client, reason: one.gone.append(reason.value))
    one.service()(lambda client, request: request.upper())
    one.start()
    return one


@pytest.fixture
def peer(server):
    with let_in(server, ASKS) as one:
        yield one


@pytest.fixture
def ask(server, peer):
    """``ask(payload, ...)`` in a thread: the future of what ``request`` returns."""
    (client,) = server.clients.values()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield lambda *arguments, **options: pool.submit(client.request, *arguments, **options)
        peer.close()  # whoever waits still hears of it


def asked(payload: bytes, id: int = 1) -> Got:  # noqa: A002
    return Got(ASK, 0, 0, id, payload)


def test_a_question_and_its_answer(peer, ask):
    reply = ask(b"d6", "roll")
    assert next_frame(peer) == asked(NAMED + b"d6")
    peer.send(answer(b"4"))
    assert reply.result() == b"4"
    reply = ask(b"again")  # of the unnamed service
    assert next_frame(peer) == asked(b"\0again", 2)
    peer.send(answer(id=2))
    assert reply.result() == b""


def test_requests_in_both_directions(peer, ask):
    """Each direction has numbers of its own."""
    reply = ask(b"d6", "roll")
    assert next_frame(peer) == asked(NAMED + b"d6")
    peer.send(wire.srm(b"a", 1) + answer(b"4", 1) + wire.srm(b"b", 2))
    assert [next_frame(peer), next_frame(peer)] == [wire.replied(b"A", 1), wire.replied(b"B", 2)]
    assert reply.result() == b"4"


@pytest.mark.parametrize("size", [0, 999, 1000])
def test_answers_in_pieces(server, peer, ask, cut, size):
    reply = ask(b"d6", "roll")
    next_frame(peer)
    wire.send_cut(server, peer.sock, answer(b"x" * size) + wire.ping(b"p"), cut)
    assert reply.result() == b"x" * size
    assert next_frame(peer) == wire.ponged(b"p")


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (1, b"ValueError", RemoteError),
        (2, b"no such service", RemoteError),
        (10, b"too many", Overloaded),
        (99, b"\xff", RemoteError),
    ],
)
def test_an_error(peer, ask, code, text, kind):
    reply = ask(b"d6", "roll")
    next_frame(peer)
    peer.send(answer_error(code, text))
    error = reply.exception()
    assert type(error) is kind
    assert (error.code, error.message, error.request_id) == (code, text.decode("utf-8", "replace"), 1)


def test_an_error_without_a_code_is_one_all_the_same(peer, ask):
    reply = ask(b"d6", "roll")
    next_frame(peer)
    peer.send(answer_error(0, b"what?"))
    assert reply.exception().code == 1


def test_answers_in_another_order(peer, ask):
    replies = []
    for number in (1, 2, 3):
        replies.append(ask(b"%d" % number))
        assert next_frame(peer) == asked(b"\0%d" % number, number)
    for number in (3, 1, 2):
        peer.send(answer(b"answer %d" % number, number))
    assert [reply.result() for reply in replies] == [b"answer 1", b"answer 2", b"answer 3"]


def test_late_answers_are_ignored_and_count_until_they_come(peer, ask):
    for number in (1, 2, 3):
        assert isinstance(ask(b"", timeout=0.01).exception(), RequestTimeout)
        assert next_frame(peer) == asked(b"\0", number)
        assert next_frame(peer) == Got(ASK_CANCEL, 0, 0, number, b"")
    with pytest.raises(Overloaded, match=r"client 1\.\d+ has 3 requests of this server to answer already.*max_asks"):
        ask(b"").result()
    peer.send(answer(b"late", 2) + answer_error(9, b"cancelled", 1))
    reply = ask_when_free(ask)
    assert next_frame(peer) == asked(b"\0", 4)
    peer.send(answer(b"late", 3) + answer(b"in time", 4))
    assert reply.result() == b"in time"


def ask_when_free(ask):
    """The loop may not have read the answers yet."""
    while True:
        reply = ask(b"")
        done, _ = concurrent.futures.wait([reply], timeout=0.05)
        if not done or not isinstance(reply.exception(), Overloaded):
            return reply


WRONG = {
    "to nothing": answer(b"4", 7),
    "an error to nothing": answer_error(1, b"what?", 7),
    "to number 0": answer(b"4", 0),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_an_answer_to_nothing_that_was_asked(server, peer, data):
    peer.send(data + wire.srm(b"not any more"))
    number = wire.parse(data)[0].id
    assert wire.rest_of(peer) == [failed(wire.MALFORMED, texts.UNASKED_ANSWER, number)]
    wait_for(lambda: server.gone == ["protocol violation"], "it was told")


def test_a_second_answer(peer, ask):
    reply = ask(b"")
    next_frame(peer)
    peer.send(answer(b"one") + answer(b"two"))
    assert reply.result() == b"one"
    assert wire.rest_of(peer) == [failed(wire.MALFORMED, texts.UNASKED_ANSWER, 1)]


@pytest.mark.parametrize("kind", [ANSWER, ANSWER_ERROR])
@pytest.mark.parametrize(
    ("options", "text"),
    [({"length": 1001}, texts.LONG_ANSWER), ({"flags": 1}, texts.BAD_FLAGS), ({"flags": 128}, texts.BAD_FLAGS)],
)
def test_an_answer_that_breaks_the_rules(peer, ask, kind, options, text):
    reply = ask(b"")
    next_frame(peer)
    peer.send(wire.frame(kind, b"", id=1, **options))
    assert wire.rest_of(peer) == [failed(wire.MALFORMED, text, 1)]
    assert isinstance(reply.exception(), ConnectionLost)


@pytest.mark.parametrize("kind", [ANSWER, ANSWER_ERROR])
@pytest.mark.parametrize("bits", [0, 3, 7, 0xFFFFFFF0])
def test_who_does_not_say_so_does_not_know_these_kinds(server, kind, bits):
    """As it was before there were features."""
    with let_in(server, features(bits)) as peer:
        (client,) = server.clients.values()
        with pytest.raises(io.UnsupportedOperation, match=r"answers no requests: give its connect\(\) services="):
            client.request(b"")
        peer.send(wire.frame(kind, b"", id=1))
        assert wire.rest_of(peer) == [failed(wire.MALFORMED, texts.UNKNOWN_KIND, 1)]


@pytest.mark.parametrize("kind", [ASK, ASK_CANCEL])
def test_only_servers_ask(peer, kind):
    peer.send(wire.frame(kind, b"\0", id=1))
    assert wire.rest_of(peer) == [failed(wire.MALFORMED, texts.SERVER_KIND, 1)]


def test_before_the_cir(server):
    assert wire.parse(wire.say(server, answer())) == [wire.refused(wire.REFUSED_MALFORMED, texts.UNKNOWN_KIND)]


def test_what_the_client_takes(server):
    """The limit is about the request: the name of the service doesn't count."""
    with let_in(server, ASKS, wire.field(wire.MAX_PAYLOAD, b"\0\0\0\x05")) as peer:
        (client,) = server.clients.values()
        with pytest.raises(FrameTooLarge, match="6 bytes is more than this client takes"):
            client.request(b"sixsix", "roll")
        with pytest.raises(FrameTooLarge, match=r"1001 bytes is over Limits.max_payload"):
            client.request(b"x" * 1001)
        thread = threading.Thread(target=client.request, args=(b"five!", "roll"))
        thread.start()
        assert next_frame(peer) == asked(NAMED + b"five!", 2)
        peer.send(answer(id=2))
        thread.join()


@pytest.mark.parametrize("how", ["closes", "leaves", "is closed", "server stops"])
def test_nobody_answers_any_more(server, peer, ask, how):
    reply = ask(b"", timeout=None)
    next_frame(peer)
    (client,) = server.clients.values()
    if how == "closes":
        peer.close()
    elif how == "leaves":
        peer.send(wire.BYE_FRAME)
    elif how == "is closed":
        client.close()
    else:
        server.stop()
    assert isinstance(reply.exception(), ConnectionLost)
    with pytest.raises(ConnectionLost):
        client.request(b"")


@pytest.mark.plain
def test_in_the_thread_of_the_loop(make_server, unix_address):
    """There it would wait for what it has to read itself."""
    server = make_server(unix_address)
    errors = []

    def asks(client, *arguments):
        with pytest.raises(PysockError, match="in the thread of the server's loop") as info:
            client.request(b"")
        errors.append(info.value)
        return b""

    server.service()(asks)
    server.on_connect(lambda client: asks(client) == b"")
    with server, let_in(server, ASKS) as peer:
        peer.send(wire.srm())
        assert next_frame(peer) == wire.replied(b"")
    assert len(errors) == 2


def test_bad_input(server, peer):
    (client,) = server.clients.values()
    with pytest.raises(ValueError, match="1 to 255 bytes in UTF-8, not 256"):
        client.request(b"", "x" * 256)
    with pytest.raises(ValueError, match="1 to 255"):
        client.request(b"", "")
    with pytest.raises(TypeError, match="name is a str"):
        client.request(b"", b"roll")
    with pytest.raises(TypeError, match="bytes-like"):
        client.request("text")
    with pytest.raises(ValueError, match="timeout"):
        client.request(b"", timeout=-1)
    peer.send(wire.ping(b"fine"))
    assert next_frame(peer) == wire.ponged(b"fine")


# --- in tasks ---


def test_a_task_of_another_loop(server, peer):
    (client,) = server.clients.values()

    async def main():
        one, two = asyncio.create_task(client.request(b"1")), asyncio.create_task(client.request(b"2", "roll"))
        frames = [await asyncio.to_thread(next_frame, peer) for _ in range(2)]
        assert frames == [asked(b"\x001", 1), asked(NAMED + b"2", 2)]
        peer.send(answer(b"two", 2) + answer_error(2, b"no such service", 1))
        assert await two == b"two"
        with pytest.raises(RemoteError, match="no such service"):
            await one
        with pytest.raises(RequestTimeout, match="didn't answer in time"):
            await client.request(b"3", timeout=0.01)
        three = asyncio.create_task(client.request(b"4"))
        await asyncio.sleep(0.01)
        three.cancel()
        await asyncio.wait([three])
        assert three.cancelled()
        frames = [await asyncio.to_thread(next_frame, peer) for _ in range(4)]
        assert frames == [
            asked(b"\x003", 3), Got(ASK_CANCEL, 0, 0, 3, b""), asked(b"\x004", 4), Got(ASK_CANCEL, 0, 0, 4, b"")
        ]  # fmt: skip
        five = asyncio.create_task(client.request(b"5"))
        await asyncio.to_thread(next_frame, peer)
        peer.close()
        with pytest.raises(ConnectionLost):
            await five

    asyncio.run(main())


def test_async_handlers_ask(make_server, unix_address):
    """Also the one who has asked them: in their first step, and after a while."""
    server = make_server(unix_address)

    @server.service()
    async def handler(client, request):
        first = await client.request(request + b"1")
        await asyncio.sleep(0)
        return first + await client.request(request + b"2")

    with server, let_in(server, ASKS) as peer:
        peer.send(wire.srm(b"a", 1) + wire.srm(b"b", 2))
        assert [next_frame(peer), next_frame(peer)] == [asked(b"\0a1", 1), asked(b"\0b1", 2)]
        peer.send(answer(b"B", 2) + answer(b"A", 1))
        frames = sorted([next_frame(peer), next_frame(peer)], key=lambda frame: frame.payload)
        assert [frame.payload for frame in frames] == [b"\0a2", b"\0b2"]
        peer.send(b"".join(answer(frame.payload[1:], frame.id) for frame in frames))
        replies = sorted([next_frame(peer), next_frame(peer)], key=lambda frame: frame.id)
        assert replies == [wire.replied(b"Aa2", 1), wire.replied(b"Bb2", 2)]


@pytest.mark.plain
def test_a_question_lasts_no_longer_than_the_request_of_its_handler(make_server, unix_address):
    server = make_server(unix_address)

    @server.service(threads=1)
    def handler(client, request):
        return client.request(b"", timeout=60)

    with server, let_in(server, ASKS) as peer:
        peer.send(wire.timed(b"", 1, left=20_000))
        assert next_frame(peer) == asked(b"\0")
        kinds = {frame.kind: frame for frame in (next_frame(peer), next_frame(peer))}
        assert kinds[ASK_CANCEL].id == 1
        assert kinds[wire.ERROR].code in {wire.TOO_LATE, wire.HANDLER_FAILED}  # whoever was first
