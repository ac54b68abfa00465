"""Users and groups by name and number, and who is at the other end of a Unix socket."""

from __future__ import annotations

import grp
import os
import pwd
import socket

import pytest

from pysock import Address
from pysock.access.peers import check_server, expected_server, group_ids, groups_of, peer_of, user_ids

SOMEBODY = pwd.getpwall()[0]
SOME_GROUP = grp.getgrall()[0]


@pytest.fixture
def two():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (0, {0}),
        (1000, {1000}),
        ("1000", {1000}),
        (2**32 - 2, {2**32 - 2}),
        ([1, "2", 3], {1, 2, 3}),
        ((7,), {7}),
        ({8, 9}, {8, 9}),
        (frozenset({8}), {8}),
        (iter([4, 4]), {4}),
    ],
)
def test_numbers(given, found):
    assert user_ids(given) == found


def test_names():
    assert user_ids(SOMEBODY.pw_name) == {SOMEBODY.pw_uid}
    assert user_ids([SOMEBODY.pw_name, 77]) == {SOMEBODY.pw_uid, 77}
    assert group_ids(SOME_GROUP.gr_name) == {SOME_GROUP.gr_gid}
    assert group_ids([SOME_GROUP.gr_name, "88"]) == {SOME_GROUP.gr_gid, 88}


@pytest.mark.parametrize("ids", [user_ids, group_ids])
@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("no-such-one", ValueError, "this machine has no (user|group) 'no-such-one'"),
        ("", ValueError, "this machine has no"),
        ("a\0b", ValueError, "this machine has no"),
        ("٣", ValueError, "this machine has no"),
        (-1, ValueError, "from 0 to 4294967294, not -1"),
        (2**32 - 1, ValueError, "from 0 to 4294967294"),
        ([], ValueError, "no (user|group) is given at all"),
        (None, TypeError, "a number or a name, not None"),
        (True, TypeError, "a number or a name, not True"),
        (1.5, TypeError, r"a number or a name, not 1\.5"),
        (b"root", TypeError, "a number or a name, not b'root'"),
        ([None], TypeError, "a number or a name, not None"),
    ],
)
def test_what_is_neither(ids, given, error, text):
    with pytest.raises(error, match=text):
        ids(given)


def test_the_other_end(two):
    one, _ = two
    assert peer_of(one) == (os.getpid(), os.geteuid(), os.getegid())
    assert groups_of(one) == set(os.getgroups())


def test_what_is_no_unix_socket():
    with socket.socket() as sock:
        assert peer_of(sock)[1:] == (-1, -1)
        assert groups_of(sock) == frozenset()
    assert peer_of(sock) == (-1, -1, -1)


def test_who_a_server_may_run_as():
    unix, abstract, tcp = map(Address.parse, ("unix:/x", "unix:@x", "tcp://127.0.0.1:9"))
    assert expected_server(unix, None) is None
    assert expected_server(tcp, None) is None
    assert expected_server(abstract, None) == {os.geteuid(), 0}
    assert expected_server(abstract, 7) == {7}
    assert expected_server(unix, [7, "8"]) == {7, 8}
    with pytest.raises(ValueError, match="server_uid goes with a Unix socket, not with tcp://"):
        expected_server(tcp, 7)


def test_who_listens(two):
    one, _ = two
    address = Address.parse("unix:/x")
    check_server(one, address, frozenset({os.geteuid()}))
    text = f"unix:/x: the server there runs as user {os.geteuid()}, not as 70001 or 70002"
    with pytest.raises(PermissionError, match=text):
        check_server(one, address, frozenset({70002, 70001}))
    with socket.socket() as unknown, pytest.raises(PermissionError, match="a user that the system doesn't tell"):
        check_server(unknown, address, frozenset({0}))
