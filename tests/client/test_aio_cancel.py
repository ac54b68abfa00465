"""Requests of the asyncio client that are cancelled: no answer of theirs ever reaches another."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import suppress

import pytest
from support import until_bye

from pysock import aio
from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.features import FEATURES
from pysock.wire.format import FLAG_DEADLINE, Kind, encode

WELCOME = encode_accepted(7, encode_welcome(100_000, 20, [], "fake"), FEATURES)
#: Received where it stays, by the C engine.
LARGE = 20_000
TASKS, ASKED = 10, 30


@pytest.mark.parametrize("size", [8, LARGE])
def test_cancelled_at_every_byte_of_its_answer(run, fake, backend, size):
    payload = b"x" * size
    offsets = range(12 + size) if size < LARGE else (*range(14), 12 + LARGE // 2, 11 + LARGE)
    sent = threading.Event()
    seen = []

    def play(peer):
        peer.frame()
        peer.send(WELCOME)
        for offset in offsets:
            number = peer.frame().request_id
            answer = encode(Kind.REPLY, payload, request_id=number)
            peer.send(answer[:offset])
            sent.set()
            seen.append(peer.frame())
            other = peer.frame()
            peer.send(answer[offset:] + encode(Kind.REPLY, other.payload[4:], request_id=other.request_id))
        until_bye(peer)

    async def main():
        async with aio.connect(fake(play), backend=backend) as client:
            for offset in offsets:
                task = asyncio.create_task(client.request(b"first"))
                while not sent.is_set():
                    await asyncio.sleep(0)
                sent.clear()
                await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                assert await client.request(b"next %d" % offset) == b"next %d" % offset

    run(main())
    assert [frame.kind for frame in seen] == [Kind.CANCEL] * len(offsets)


class SlowProxy:
    """Answers in any order, late, in pieces of any size; also what was cancelled. Each frame moves it on."""

    def __init__(self, chance):
        self._chance = chance
        self._answers = []
        self._bytes = b""

    def __call__(self, peer):
        peer.frame()
        peer.send(WELCOME)
        while (frame := peer.frame()) is not None and frame.kind != Kind.BYE:
            if frame.flags == FLAG_DEADLINE:
                self._answers.append(encode(Kind.REPLY, frame.payload[4:] + b"!", request_id=frame.request_id))
            if self._chance.random() < 0.3 or len(self._answers) > 5:
                self._send_some(peer)

    def _send_some(self, peer):
        self._chance.shuffle(self._answers)
        self._bytes += b"".join(self._answers)
        self._answers.clear()
        cut = self._chance.randrange(len(self._bytes) + 1)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may be gone by now
            peer.send(self._bytes[:cut])
        self._bytes = self._bytes[cut:]
        time.sleep(0.0003)


async def ask(client, name, chance):
    """How many of its requests were cancelled; each other one has got its own answer."""
    cancelled = 0
    for turn in range(ASKED):
        payload = b"%d %d" % (name, turn) + b"." * chance.randrange(40)
        task = asyncio.create_task(client.request(payload))
        if chance.random() < 0.5:
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(chance.choice([0, 0, 0.0005]))
            task.cancel()
        try:
            assert await task == payload + b"!"
        except asyncio.CancelledError:
            cancelled += 1
    return cancelled


async def notify_on(client):
    while True:
        await client.notify(b"")
        await asyncio.sleep(0.001)


def test_cancelled_at_random(run, fake, backend):
    chance = random.Random(8)

    async def main():
        async with aio.connect(fake(SlowProxy(random.Random(9))), backend=backend) as client:
            notifying = asyncio.create_task(notify_on(client))
            cancelled = sum(await asyncio.gather(*(ask(client, name, chance) for name in range(TASKS))))
            notifying.cancel()
            assert ASKED < cancelled < ASKED * (TASKS - 1)

    run(main())
