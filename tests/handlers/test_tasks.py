"""The tasks of handlers that wait for something: before Python 3.12 one serves several requests if nobody can tell."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref

import pytest
from support import wait_for

from pysock import connect

EAGER = sys.version_info >= (3, 12)


@pytest.fixture
def serve(serve, unix_address):
    """``serve(handler)``: a client of a server that has it."""
    with contextlib.ExitStack() as clients:

        def start(handler):
            serve(handler)
            return clients.enter_context(connect(unix_address))

        yield start


async def wait(seconds=0.0):
    """Also where that is given to no task."""
    await asyncio.sleep(seconds)


@pytest.mark.skipif(EAGER, reason="it begins eagerly, and each has a task of its own")
@pytest.mark.parametrize("seconds", [0, 0.001])
def test_it_serves_the_next_one(serve, seconds):
    names = []

    async def handler(client, request):
        names.append(asyncio.current_task().get_name())
        await asyncio.sleep(seconds)
        if request == b"raise":
            raise ValueError(request)
        return request

    client = serve(handler)
    for _ in range(10):
        assert client.request(b"x") == b"x"
        with pytest.raises(Exception, match="ValueError"):
            client.request(b"raise")
    assert len(set(names)) == 1


KEPT: list[object] = []


async def cancelled_in_vain(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(1)


async def kept_while_it_waits(task):
    asyncio.get_running_loop().call_soon(KEPT.append, task)
    await asyncio.sleep(0.001)


WAYS = {
    "kept": KEPT.append,
    "kept while it waits": kept_while_it_waits,
    "kept by a weak reference": lambda task: KEPT.append(weakref.ref(task)),
    "with a callback": lambda task: task.add_done_callback(lambda _: None),
    "of another name": lambda task: task.set_name("mine"),
}
if sys.version_info >= (3, 11):  # before, a task doesn't count its cancels: nothing is left of one in vain
    WAYS["cancelled in vain"] = cancelled_in_vain


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", [True, False], ids=["before it waits", "after"])
def test_one_that_somebody_has_ends(serve, way, first):
    seen, ended = [], []
    KEPT.clear()

    async def handler(client, request):
        task = asyncio.current_task()
        seen.append(task.get_name())
        if request == b"ends":
            ended.append(len([task for task in asyncio.all_tasks() if task.get_name() in seen]))
            return b""
        if not first:
            await wait()
        result = WAYS[way](task)
        await (wait() if result is None else result)
        seen.append(task.get_name())
        del task
        await wait(0.001)
        return request

    client = serve(handler)
    assert client.request(b"x") == b"x"
    names = set(seen)
    client.request(b"ends")
    assert seen[-1] not in names
    assert ended == [1]  # the one that asks
    assert all(kept.done() for kept in KEPT if isinstance(kept, asyncio.Task))


def test_who_waits_for_it_goes_on(serve):
    told = []

    async def look(task):
        await task
        told.append(task.done())

    async def handler(client, request):
        await wait()
        KEPT.append(asyncio.get_running_loop().create_task(look(asyncio.current_task())))
        await wait(0.001)
        return request

    client = serve(handler)
    for done in range(1, 4):
        client.request(b"x")
        wait_for(lambda done=done: told == [True] * done)


def test_many_at_once_and_then_none_is_left(serve):
    left = []

    async def handler(client, request):
        await wait(0.01)
        left.append(len(asyncio.all_tasks()))
        return request

    client = serve(handler)
    many = [b"%d" % number for number in range(300)]
    for _ in range(2):
        assert client.request_many(many) == many
    left.clear()
    client.request(b"x")
    assert left[0] < 140  # those that wait for the next are 128 at most
