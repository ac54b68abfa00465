"""Either side of a hand-over is killed, or stands still, before or after each message: who serves whom then.

A ledger of all requests is the oracle: each has one answer, the right one, or its connection has ended with the process
that had it; nobody waits in vain.
"""

from __future__ import annotations

import itertools
import os
import signal
import textwrap
import threading

import pytest
from support import Program, wait_for

import pysock

PROGRAM = """
    import os, signal, sys, time
    import pysock
    from pysock.handover import relay
    from pysock.handover.channel import Channel
    from pysock.handover.options import Options

    address, backend, number, when, what = sys.argv[1:]

    def strikes(name, method):
        real = getattr(Channel, method)

        def call(self, *args, **named):
            if method == "send":
                said = f"send {args[0].name}"
                strike("before " + said)
                real(self, *args, **named)
                strike("after " + said)
                return
            heard = real(self, *args, **named)
            strike("after hear " + heard.message.name)
            return heard

        setattr(Channel, method, call)

    def strike(moment):
        if moment == when:
            os.kill(os.getpid(), getattr(signal, what))
            time.sleep(0.1)  # another thread takes the signal, and this one would go on as long

    strikes("send", "send")
    strikes("receive", "receive")
    server = pysock.Server(address, backend=backend, handover=address + ".next")
    server._running.relay.options = Options(step=0.4, prepare=2.0, grace=2.0)

    @server.service
    def who(client, request):
        return number.encode() + b":" + request

    @server.on_state
    def tell(old, new):
        if new.name == "SERVING":
            print("serving", flush=True)

    server.serve_forever(grace=1.0)
"""

#: What each side says and hears until it is over.
OLD = ["send OFFER", "send LISTENERS", "send FREEZE", "send ROWS", "send COMMIT"]
OLD_HEARS = ["hear HELLO", "hear PREPARED", "hear TAKEN"]
NEW = ["send HELLO", "send PREPARED", "send TAKEN"]
NEW_HEARS = ["hear OFFER", "hear LISTENERS", "hear FREEZE", "hear ROWS", "hear COMMIT"]


def moments(says, hears):
    """Before and after each."""
    return [f"{side} {one}" for one in says for side in ("before", "after")] + [f"after {one}" for one in hears]


def program(address, backend, number, when="never", what="SIGKILL"):
    return Program(textwrap.dedent(PROGRAM), address, backend, number, when, what)


class Ledger:
    """Clients that ask all the time, and what each was told."""

    def __init__(self, address, count=6):
        self.wrong = []
        self.by = [[] for _ in range(count)]  # which process has answered, of each client, in this order
        self.ended = [False] * count
        self._is_over = False
        self._clients = [pysock.connect(address, timeout=10) for _ in range(count)]
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: all(self.by))

    def _ask(self, mine):
        for number in itertools.count():
            if self._is_over:
                return
            wanted = b"%d %d" % (mine, number)
            try:
                answer = self._clients[mine].request(wanted)
            except pysock.ConnectionLost:
                self.ended[mine] = True
                return
            except Exception as error:
                self.wrong.append(repr(error))
                return
            by, _, rest = answer.partition(b":")
            if rest != wanted:
                self.wrong.append((answer, wanted))
            self.by[mine].append(by.decode())

    def answered_again(self):
        """Each that hasn't ended gets answers still."""
        counts = [len(each) for each in self.by]

        def have_all():
            pairs = zip(self.by, counts, self.ended, strict=True)
            return self.wrong or all(ended or len(each) > count + 1 for each, count, ended in pairs)

        wait_for(have_all, f"answers: {counts} {self.ended}")

    def last(self):
        """Who serves them: of each that hasn't ended."""
        return {each[-1] for each, ended in zip(self.by, self.ended, strict=True) if not ended}

    def close(self):
        self._is_over = True
        for thread in self._threads:
            thread.join(10)
        for client in self._clients:
            client.close()
        # Once another process serves a client, the one before never does again.
        for each in self.by:
            assert len([one for one, _ in itertools.groupby(each)]) <= 2, each


@pytest.fixture
def unix(socket_dir):
    return f"unix:{socket_dir}/s"


def serves(address):
    """Who answers a new client."""
    with pysock.connect(address, timeout=10) as client:
        return client.request(b"x").partition(b":")[0].decode()


@pytest.mark.parametrize("when", moments(NEW, NEW_HEARS))
def test_the_new_side_is_killed(unix, backend, when):
    """Whatever it has got, the old one serves on, all of them."""
    with program(unix, backend, "old") as old:
        assert old.line() == "serving"
        ledger = Ledger(unix)
        with program(unix, backend, "new", when) as new:
            assert new.process.wait(20) == -signal.SIGKILL
            ledger.answered_again()
            assert (ledger.wrong, ledger.last(), any(ledger.ended)) == ([], {"old"}, False)
            assert serves(unix) == "old"
        # And nothing of it is left in the way of the next one.
        with program(unix, backend, "next") as after:
            assert after.line() == "serving"
            ledger.answered_again()
            assert (ledger.wrong, ledger.last(), any(ledger.ended)) == ([], {"next"}, False)
            ledger.close()
            assert old.process.wait(20) == 0


@pytest.mark.parametrize("when", moments(OLD, OLD_HEARS))
def test_the_old_side_is_killed(unix, backend, when):
    """Those whom the new one has it serves; the others have lost their process."""
    with program(unix, backend, "old", when) as old:
        assert old.line() == "serving"
        ledger = Ledger(unix)
        with program(unix, backend, "new") as new:
            assert new.line() == "serving"
            assert old.process.wait(20) == -signal.SIGKILL
            ledger.answered_again()
            assert ledger.wrong == []
            assert ledger.last() <= {"new"}
            if when in {"after send ROWS", "after hear TAKEN", "before send COMMIT", "after send COMMIT"}:
                assert not any(ledger.ended)
            assert serves(unix) == "new"
            ledger.close()


@pytest.mark.parametrize("when", ["after hear FREEZE", "after hear ROWS", "after hear COMMIT"])
def test_the_new_side_stands_still(unix, backend, when):
    """The old one takes them back; when the new one goes on, it gives up."""
    with program(unix, backend, "old") as old:
        assert old.line() == "serving"
        ledger = Ledger(unix)
        with program(unix, backend, "new", when, "SIGSTOP") as new:
            wait_for(lambda: stands_still(new))
            ledger.answered_again()
            assert (ledger.wrong, ledger.last()) == ([], {"old"})
            new.signal(signal.SIGCONT)
            assert new.process.wait(20) != 0
            ledger.answered_again()
            assert (ledger.wrong, ledger.last(), any(ledger.ended)) == ([], {"old"}, False)
            ledger.close()


@pytest.mark.parametrize("when", ["after send FREEZE", "after send ROWS", "before send COMMIT"])
def test_the_old_side_stands_still(unix, backend, when):
    """The new one can't know what it will do, and gives up; the old one serves on when it can."""
    with program(unix, backend, "old", when, "SIGSTOP") as old:
        assert old.line() == "serving"
        ledger = Ledger(unix)
        with program(unix, backend, "new") as new:
            wait_for(lambda: stands_still(old))
            assert new.process.wait(20) != 0
            old.signal(signal.SIGCONT)
            ledger.answered_again()
            assert (ledger.wrong, ledger.last(), any(ledger.ended)) == ([], {"old"}, False)
            assert serves(unix) == "old"
            ledger.close()


def stands_still(program):
    with open(f"/proc/{program.process.pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def test_again_and_again_under_load(unix, backend):
    with program(unix, backend, "0") as first:
        assert first.line() == "serving"
        ledger = Ledger(unix)
        before = first
        for number in range(1, 6):
            following = program(unix, backend, str(number))
            try:
                assert following.line() == "serving"
                assert before.process.wait(20) == 0
            finally:
                before.__exit__()
                before = following
            ledger.answered_again()
            assert (ledger.wrong, ledger.last(), any(ledger.ended)) == ([], {str(number)}, False)
        assert len(os.listdir(f"/proc/{before.process.pid}/fd")) < 40
        ledger._is_over = True
        for thread in ledger._threads:
            thread.join(10)
        for client in ledger._clients:
            client.close()
        before.__exit__()
