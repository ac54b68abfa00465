"""What a client is told of a handler's exception, and what the server's log says of the request."""

from __future__ import annotations

import pickle
import re
import time

import pytest

from pysock import Limits, RemoteError, connect

LINE = re.compile(r"service '(\w+)' failed for client [\d.]+ 'me': request (\d+), after ([\d.]+) ms; its handler is ")


class NotFound(Exception):
    """Its name has no ending that tells."""


RAISED = {
    b"words": lambda: ValueError("bad: thing"),
    b"none": NotFound,
    b"meant": lambda: RemoteError("sorry: no", 1),
    b"code": lambda: RemoteError("KeyError", 77),
    b"word": lambda: RemoteError("busy"),
    b"lines": lambda: RemoteError("not\ntoday"),
}


def raising(_client, request):
    raise RAISED[request]()


def asked(server, *requests, service="fail"):
    with server, connect(server.addresses[0], name="me", backend=server.backend) as client:
        return client.request_many(requests, service=service, return_exceptions=True)


def batch(_clients, requests):
    return [RAISED[request]() for request in requests]


@pytest.mark.parametrize("many", [False, True], ids=["plain", "batch"])
@pytest.mark.parametrize(
    ("expose", "words"), [("type", ("ValueError", "ValueError")), ("message", ("ValueError: bad: thing", "bad: thing"))]
)
def test_what_is_told(make_server, address, expose, words, many):
    server = make_server(address, expose=expose)
    server.batch_service("fail")(batch) if many else server.service("fail")(raising)
    errors = asked(server, *RAISED)
    assert [(str(error), error.message) for error in errors] == [
        words,
        ("NotFound", "NotFound"),
        *((text, text) for text in ("sorry: no", "KeyError", "busy", "not\ntoday")),
    ]
    assert [error.type for error in errors] == ["ValueError", "NotFound", "", "", "", ""]
    assert [error.code for error in errors] == [1, 1, 1, 77, 1, 1]
    assert [error.request_id for error in errors] == list(range(1, 7))
    again = pickle.loads(pickle.dumps(errors[0]))
    assert (str(again), again.type, again.message, again.request_id) == (words[0], "ValueError", words[1], 1)


def test_a_traceback_is_told(make_server, address):
    server = make_server(address, expose="traceback")
    server.service("fail")(raising)
    error, meant = asked(server, b"words", b"meant")
    assert error.type == "ValueError"
    assert error.message.startswith("bad: thing\n\nTraceback (most recent call last):\n")
    assert f'File "{__file__}"' in error.message
    assert error.message.endswith("ValueError: bad: thing")
    assert meant.message == "sorry: no"


def test_what_is_told_is_cut_to_what_the_client_takes(make_server, address):
    server = make_server(address, expose="traceback")
    server.service("fail")(raising)
    with server, connect(server.addresses[0], backend=server.backend, max_payload=20) as client:
        with pytest.raises(RemoteError) as caught:
            client.request(b"words", service="fail")
        assert (caught.value.type, caught.value.message) == ("ValueError", "bad: th")


def test_an_exception_that_has_no_words(make_server, address):
    class Odd(Exception):
        def __str__(self):
            raise ZeroDivisionError

    def fail(_client, _request):
        raise Odd

    server = make_server(address, expose="message")
    server.service("fail")(fail)
    (error,) = asked(server, b"")
    assert (error.type, error.message) == ("Odd", "Odd")


def test_the_log_has_one_record_a_failure(make_server, address, caplog):
    server = make_server(address, limits=Limits())

    @server.service("fail")
    def fail(_client, request):
        time.sleep(0.05)
        raise ValueError(request)

    asked(server, b"1", b"2")
    found = [LINE.match(record.getMessage()) for record in caplog.records if record.levelname == "ERROR"]
    assert [match.group(1, 2) for match in found] == [("fail", "1"), ("fail", "2")]
    assert all(50 <= float(match[3]) < 5000 for match in found)


def test_the_time_of_a_batch_counts_from_its_first_request(make_server, address, caplog):
    server = make_server(address)

    @server.batch_service("fail", max_wait=0.1)
    def fail(_clients, _requests):
        raise ValueError

    asked(server, b"1", b"2")
    found = [LINE.match(record.getMessage()) for record in caplog.records if record.levelname == "ERROR"]
    assert len(found) == 2
    assert all(100 <= float(match[3]) < 5000 for match in found)


@pytest.mark.parametrize("wrong", ["", "all", "Type", None, 1, ["type"], True])
def test_other_words_are_refused(make_server, address, wrong):
    with pytest.raises(ValueError, match=r"^expose must be one of 'type', 'message', 'traceback', not "):
        make_server(address, expose=wrong)
