"""Exits and forks of programs whose handlers wait: tasks in a loop, threads and processes of a service."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import PATIENCE, ROOT, Program, environment

#: What the end may take, in seconds, and beside it what the interpreter takes for itself.
SOON, SLACK = 1.0, 1.0
#: How often it is tried: a busy machine takes longer now and then.
TRIES = 3

PROGRAM = """
import asyncio, contextlib, glob, os, sys, threading, time, warnings
sys.path.insert(0, sys.argv[4])
import pysock, wire, worked
address, backend, kind = sys.argv[1:4]
begun = threading.Semaphore(0)
server = pysock.Server(address, backend=backend, loop=kind)

@server.service("task")
async def task(client, request):
    begun.release()
    await asyncio.sleep(30)

@server.service("swallows")
async def swallows(client, request):
    begun.release()
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)

@server.service("later")
def later(client, request):
    begun.release()
    kept.append(pysock.later())
    return kept[-1]

@server.service("thread", threads=1)
def thread(client, request):
    begun.release()
    time.sleep(30)  # in C

@server.service("echo")
async def echo(client, request):
    await asyncio.sleep(0)
    return request

@server.service("stream")
async def stream(client, request):
    begun.release()
    while True:
        yield bytes(1000)

@server.service("generator")
def generator(client, request):
    begun.release()
    while True:
        yield bytes(1000)

server.service("process", processes=1)(worked.slow)
server.service("pid", processes=1)(worked.pid)
kept = []

def ask(service):
    client = pysock.connect(server.addresses[0], backend=backend, timeout=60)
    kept.append(client)
    client.notify(b"30", service=service)
    if service != "process":
        begun.acquire()

def take(service):
    # A stream, of which nothing is read: it waits for credit.
    peer = wire.let_in(server, wire.features(7))
    peer.send(wire.srm(b"", service=service, flags=wire.TAKES_STREAM))
    begun.acquire()
    time.sleep(0.1)
    kept.append(peer.sock.detach())  # it stays open, and nobody complains of that

async def in_thread(work, *arguments):
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

def run(main):
    if kind == "uvloop":
        import uvloop
        return uvloop.run(main)
    return asyncio.run(main)

def close():
    for one in kept:
        if isinstance(one, pysock.Client):
            one.close()
"""


def arguments(address, backend, loop):
    return address, backend, loop, f"{ROOT}/tests/help"


def timed(code, *arguments):
    """It ends well, and says nothing that it shouldn't. How long the end took."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, *arguments],
        env=environment(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    after = time.monotonic()
    # In its debug mode asyncio tells what takes long on a busy machine.
    expected = ("hasn't returned", "goes on, though", "Executing <")
    said = [line for line in done.stderr.splitlines() if not any(words in line for words in expected)]
    assert (done.returncode, said) == (0, [])
    return after - float(done.stdout.split()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attached", "waits", "loop"),
    [
        *((False, waits, "asyncio") for waits in ("task", "swallows", "later", "thread", "process")),
        *((True, waits, "asyncio") for waits in ("task", "later", "thread", "process")),  # swallowing holds run() up
        *((False, waits, "uvloop") for waits in ("task", "swallows")),  # of the others the loop knows nothing
        (True, "task", "uvloop"),
    ],
    indirect=["loop"],
)
def test_an_exit_is_quiet_and_soon(backend, unix_address, loop, waits, attached):
    """Whatever waits, it takes a second more at most; with warnings that are errors, and in asyncio's debug mode."""
    last = "print('end', time.monotonic(), flush=True)"
    code = f"{PROGRAM}\nif __name__ == '__main__':\n    server.start(); ask({waits!r}); close(); {last}\n"
    if attached:
        code = f"""{PROGRAM}
async def main():
    await server.__aenter__()
    await in_thread(ask, {waits!r})
    close()
    {last}
run(main())
"""
    for _ in range(TRIES):
        took = timed(code, *arguments(unix_address, backend, loop))
        if took < SOON + SLACK:
            break
    assert took < SOON + SLACK
    assert not Path(unix_address.removeprefix("unix:")).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "attached"), [(6, True), (7, False)], ids=["of a task", "of the loop"])
def test_an_exit_with_a_stream_that_waits_for_credit(backend, unix_address, number, attached):
    """Nobody asks for more of it, and it says nothing."""
    last = "print('end', time.monotonic(), flush=True)"
    code = f"{PROGRAM}\nif __name__ == '__main__':\n    server.start(); take({number}); {last}\n"
    if attached:
        code = f"""{PROGRAM}
async def main():
    await server.__aenter__()
    await in_thread(take, {number})
    {last}
run(main())
"""
    for _ in range(TRIES):
        took = timed(code, *arguments(unix_address, backend, "asyncio"))
        if took < SOON + SLACK:
            break
    assert took < SOON + SLACK
    assert not Path(unix_address.removeprefix("unix:")).exists()


def test_a_fork_beside_a_loop_with_workers(backend, unix_address, loop):
    """The child has nothing of it, and the parent's goes on, tasks and workers."""
    code = f"""{PROGRAM}
warnings.simplefilter("ignore")
def fork():
    client = pysock.connect(server.addresses[0], backend=backend)
    kept.append(client)
    worker = client.request(b"", service="pid")
    child = os.fork()
    if not child:
        try:
            server.stats()
        except pysock.PysockError as error:
            print("child:", "of which this one is a forked child" in str(error), threading.active_count())
        # The loop's own is the program's.
        print("sockets:", count() - own, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("parent:", client.request(b"0", service="echo"), client.request(b"", service="pid") == worker, flush=True)

def count():
    return sum("socket" in os.path.realpath(fd) for fd in glob.glob("/proc/self/fd/*"))

async def main():
    global own
    own = count()
    async with server:
        await in_thread(fork)
        close()
run(main())
"""
    with Program(code, *arguments(unix_address, backend, loop)) as program:
        status, out, errors = program.end()
    assert (status, out, errors) == (0, "child: True 1\nsockets: 0\nparent: b'0' True\n", "")


def test_programs_that_are_started_under_load_get_no_descriptors(backend, unix_address, loop):
    """Not even where descriptors aren't closed for them; and none is lost here."""
    code = f"""{PROGRAM}
import subprocess
over = threading.Event()
def load():
    with pysock.connect(server.addresses[0], backend=backend) as client:
        while not over.is_set():
            client.request(b"0", service="echo")
            client.request(b"", service="pid")
def come_and_go():
    while not over.is_set():
        pysock.connect(server.addresses[0], backend=backend).close()
listing = "import os; os.system('ls -l /proc/$PPID/fd | grep -c -e socket -e epoll -e timerfd')"
def start():
    return subprocess.run([sys.executable, "-c", listing], stdout=subprocess.PIPE, close_fds=False).stdout
def count():
    return len(os.listdir("/proc/self/fd"))
async def main():
    async with server:
        others = [asyncio.create_task(in_thread(work)) for work in (load, come_and_go)]
        before = await in_thread(lambda: (start(), count())[1])
        print({{await in_thread(start) for _ in range(5)}})
        over.set()
        await asyncio.gather(*others)
        print(await in_thread(count) <= before)
run(main())
"""
    with Program(code, *arguments(unix_address, backend, loop), PYTHONWARNINGS="ignore") as program:
        status, out, errors = program.end(2 * PATIENCE)
    assert (status, errors) == (0, "")
    inherited, no_more = out.splitlines()
    assert inherited == "{b'0\\n'}"
    assert no_more == "True"


def test_a_process_that_is_killed_again_and_again(backend, unix_address):
    """While it does nothing: the next request is served by another one, and no more are started than there were."""
    code = f"""{PROGRAM}
import signal
server.start()
with pysock.connect(server.addresses[0], backend=backend) as client:
    for _ in range(4):
        os.kill(int(client.request(b"", service="pid")), signal.SIGKILL)
        time.sleep(0.05)
        for _ in range(50):
            try:
                print(client.request(b"", service="pid").decode(), flush=True)
                break
            except pysock.RemoteError as error:
                assert "died" in str(error), error
server.stop()
"""
    with Program(code, *arguments(unix_address, backend, "asyncio")) as program:
        status, out, errors = program.end()
    assert status == 0, errors
    assert len(set(out.split())) == 4
    assert not any(Path(f"/proc/{number}").exists() for number in out.split())
