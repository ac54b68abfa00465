"""What a bus promises its nodes, on every one: who hears what, in which order, and how requests end."""

from __future__ import annotations

import threading
import time

import pytest
from support import wait_for

from pysock.cluster.bus.contract import BusState, Outcome
from pysock.errors import BusDown, FrameTooLarge, ParameterError


def numbers(first, last):
    return [b"%d" % number for number in range(first, last)]


def test_everybody_hears_what_is_published_also_who_publishes_it(bus_node):
    nodes = [bus_node(), bus_node(), bus_node()]
    for one in nodes:
        one.hear("all")
        one.settle()
    nodes[0].say("all", b"hello")
    for one in nodes:
        assert one.got("all", 1) == [b"hello"]


def test_messages_come_once_and_in_order(bus_node):
    one, other = bus_node(), bus_node()
    other.hear("a")
    other.settle()
    for payload in numbers(0, 3000):
        one.say("a", payload)
    assert other.got("a", 3000) == numbers(0, 3000)


def test_several_threads_each_keep_their_order(bus_node):
    one, other = bus_node(), bus_node()
    other.hear("a")
    other.settle()

    def publish(name):
        for number in range(300):
            one.say("a", b"%d %d" % (name, number))

    threads = [threading.Thread(target=publish, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = other.got("a", 1200)
    for name in range(4):
        assert [one for one in heard if one.startswith(b"%d " % name)] == [b"%d %d" % (name, n) for n in range(300)]


def test_a_subject_is_heard_alone_and_not_any_more_after_the_end(bus_node):
    one = bus_node()
    ended, other, twin = one.hear("a"), one.hear("a.b"), one.hear("a")
    one.settle()
    one.say("a", b"1")
    one.got("a", 2)
    ended.end()
    ended.end()
    one.settle()
    one.say("a", b"2")
    assert one.got("a", 3) == [b"1", b"1", b"2"]
    twin.end()
    other.end()
    one.settle()
    assert one.ask("a") == (Outcome.NOBODY, b"")
    assert one.heard["a.b"] == []


def test_a_request_is_answered(bus_node):
    one, other = bus_node(), bus_node()
    other.hear("upper", bytes.upper)
    other.settle()
    assert one.ask("upper", b"hello") == (Outcome.ANSWERED, b"HELLO")
    assert other.ask("upper", b"to itself") == (Outcome.ANSWERED, b"TO ITSELF")


def test_many_requests_each_get_their_own_answer(bus_node):
    one, other = bus_node(), bus_node()
    other.hear("upper", bytes.upper)
    other.settle()
    ends = [one.begin("upper", b"n%d" % number) for number in range(2000)]
    wait_for(lambda: all(ends), "all answers")
    assert ends == [[(Outcome.ANSWERED, b"N%d" % number)] for number in range(2000)]


def test_of_several_answers_the_first_one_counts(bus_node):
    nodes = [bus_node(), bus_node(), bus_node()]
    for one in nodes[:2]:
        one.hear("a", bytes.upper)
        one.settle()
    ends = nodes[2].begin("a", b"x")
    wait_for(lambda: ends, "an answer")
    nodes[2].settle()
    assert ends == [(Outcome.ANSWERED, b"X")]


def test_a_request_to_nobody_says_so_at_once(bus_node):
    one = bus_node()
    begin = time.monotonic()
    assert one.ask("nobody", b"x") == (Outcome.NOBODY, b"")
    assert time.monotonic() - begin < 1


def test_a_request_that_nobody_answers_is_late_in_time(bus_node):
    one, other = bus_node(), bus_node()
    other.hear("silent")
    other.settle()
    begin = time.monotonic()
    slow, fast = one.begin("silent", b"1", 0.3), one.begin("silent", b"2", 0.05)
    wait_for(lambda: fast, "the first one")
    assert 0.05 <= time.monotonic() - begin < 0.29
    wait_for(lambda: slow, "the other")
    assert 0.3 <= time.monotonic() - begin < 1
    assert slow == fast == [(Outcome.LATE, b"")]


def test_an_answer_that_comes_too_late_is_forgotten(bus_node):
    one, other = bus_node(), bus_node()
    asked = []
    other.bus.subscribe(f"{other.prefix}.slow", asked.append)
    other.settle()
    ends = one.begin("slow", b"1", 0.02)
    wait_for(lambda: ends, "the end")
    asked[0].answer(b"late")
    asked[0].answer(b"again")
    one.settle()
    assert ends == [(Outcome.LATE, b"")]


def test_of_a_queue_one_hears_each_message(bus_node):
    asker, *members = bus_node(), bus_node(), bus_node(), bus_node()
    for member in members:
        member.hear("q", bytes.upper, queue=True)
        member.settle()
    for number in range(100):
        assert asker.ask("q", b"a%d" % number) == (Outcome.ANSWERED, b"A%d" % number)
    for number in range(50):
        asker.say("q", b"b%d" % number)
    wait_for(lambda: sum(len(member.heard["q"]) for member in members) >= 150, "all messages")
    heard = [payload for member in members for payload in member.heard["q"]]
    assert sorted(heard) == sorted([b"a%d" % n for n in range(100)] + [b"b%d" % n for n in range(50)])
    assert all(len(member.heard["q"]) > 5 for member in members)


def test_beside_a_queue_everybody_hears_who_has_subscribed_alone(bus_node):
    asker, alone, *members = bus_node(), bus_node(), bus_node(), bus_node()
    alone.hear("q")
    for member in members:
        member.hear("q", queue=True)
    for one in (alone, *members):
        one.settle()
    for payload in numbers(0, 20):
        asker.say("q", payload)
    assert alone.got("q", 20) == numbers(0, 20)
    wait_for(lambda: sum(len(member.heard["q"]) for member in members) == 20, "the queue")


def test_a_member_that_leaves_its_queue_is_asked_no_more(bus_node):
    asker, stays, goes = bus_node(), bus_node(), bus_node()
    stays.hear("q", bytes.upper, queue=True)
    member = goes.hear("q", bytes.lower, queue=True)
    for one in (stays, goes):
        one.settle()
    member.end()
    goes.settle()
    assert {asker.ask("q", b"x") for _ in range(20)} == {(Outcome.ANSWERED, b"X")}
    stays.bus.close()
    wait_for(lambda: asker.ask("q", b"x") == (Outcome.NOBODY, b""), "nobody to be left")


def test_what_a_subscriber_raises_harms_nobody(bus_node, caplog):
    one = bus_node()

    def fail(_heard):
        raise RuntimeError("on purpose")

    one.bus.subscribe(f"{one.prefix}.a", fail)
    one.hear("a")
    one.settle()
    one.say("a", b"1")
    one.say("a", b"2")
    assert one.got("a", 2) == [b"1", b"2"]
    assert "on purpose" in caplog.text


def test_payloads_up_to_the_limit_pass_and_no_longer_ones(bus_node):
    one, other = bus_node(), bus_node()
    other.hear("big", lambda payload: payload[:10])
    other.settle()
    largest = b"x" * one.bus.max_payload
    one.say("big", largest)
    assert other.got("big", 1) == [largest]
    for call in (one.say, one.ask):
        with pytest.raises(FrameTooLarge, match=f"max_payload of the bus .*{one.bus.max_payload} bytes"):
            call("big", largest + b"x")
    assert one.ask("big", b"after") == (Outcome.ANSWERED, b"after")


@pytest.mark.parametrize("subject", ["", "a..b", ".a", "a.", "a b", "a.*", ">", "a\r\nPUB x 0", "ü", "a" * 256])
def test_what_is_no_subject_is_an_error(bus_node, subject):
    one = bus_node(start=False)
    for call in (lambda: one.bus.publish(subject, b""), lambda: one.bus.subscribe(subject, print)):
        with pytest.raises(ParameterError, match="a subject must be of") as caught:
            call()
        assert caught.value.parameter == "subject"


def test_before_it_is_connected_and_after_the_end_it_is_down(bus_node):
    one = bus_node(start=False)
    with pytest.raises(BusDown, match="isn't connected yet"):
        one.say("a", b"")
    one.hear("a")
    one.start()
    one.say("a", b"1")
    one.got("a", 1)
    one.bus.close()
    assert one.bus.state is BusState.LOST
    for call in (one.say, one.begin):
        with pytest.raises(BusDown, match="it was closed"):
            call("a", b"")


def test_an_end_closes_all_that_it_has_opened(bus_engine, bus_node, open_files):
    bus_node().bus.close()  # whatever is opened once, is
    before = threading.active_count(), open_files()
    one = bus_node()
    one.hear("a", bytes.upper)
    one.ask("a")
    ends = one.begin("b")
    one.bus.close()
    one.bus.close()
    assert len(ends) == 1
    assert (threading.active_count(), open_files()) == before
    bus_node(start=False).bus.close()
    assert open_files() == before[1]
