"""One answer of several workers."""

from __future__ import annotations

import pytest

from pysock.admin.merging import merged, spread


def row(client_id, connected_at):
    return {"id": client_id, "connected_at": connected_at}


def test_clients_of_all_in_their_order():
    answers = {
        1: {"at": 9.0, "total": 2, "clients": [row("1.0", 5.0), row("1.1", 1.0)], "next": "1.1", "gone": []},
        0: {"at": 8.0, "total": 1, "clients": [row("1.0", 3.0)], "next": None, "gone": [{"id": "1.5", "left_at": 2.0}]},
        2: None,
    }
    found = merged("clients", answers)
    assert [(one["id"], one["worker"]) for one in found["clients"]] == [("1.1.1", 1), ("0.1.0", 0), ("1.1.0", 1)]
    assert (found["at"], found["total"], found["hung"]) == (9.0, 3, [2])
    assert found["gone"] == [{"id": "0.1.5", "left_at": 2.0, "worker": 0}]
    assert found["next"] == {"0": None, "1": "1.1"}
    assert spread("clients", {"limit": 5, "after": found["next"]}, [0, 1, 2]) == {1: {"limit": 5, "after": "1.1"}}


def test_the_last_page():
    assert merged("clients", {0: {"next": None}, 1: {"next": None}})["next"] is None


def test_whom_to_kill():
    assert spread("kill", {"id": "2.1.7", "uid": 0}, [0, 1, 2]) == {2: {"id": "1.7", "uid": 0}}
    assert spread("kill", {"id": "9.1.7"}, [0, 1]) == {}
    assert spread("kill", {"name": "x"}, [0, 1]) == {0: {"name": "x"}, 1: {"name": "x"}}
    for wrong in ("1.7", "x.1.7"):
        with pytest.raises(ValueError, match=r"several workers here, as '0\.1\.7'"):
            spread("kill", {"id": wrong}, [0, 1])
    assert merged("kill", {0: {"killed": 1, "ids": ["1.7"]}, 1: {"killed": 2, "ids": ["1.7", "1.8"]}}) == {
        "killed": 3,
        "ids": ["0.1.7", "1.1.7", "1.1.8"],
        "hung": [],
    }


def test_counters_are_added_and_each_worker_is_told_of():
    one = {"at": 1.0, "since": 5.0, "state": "SERVING", "lame": False, "stuck_for": 0.0, "counters": {"requests": 1}}
    two = {"at": 2.0, "since": 3.0, "state": "DRAINING", "lame": True, "stuck_for": 4.0, "counters": {"requests": 2}}
    found = merged("stats", {0: one, 1: two, 2: None})
    assert found["counters"] == {"requests": 3}
    assert (found["at"], found["since"], found["state"], found["lame"], found["stuck_for"]) == (
        2.0,
        3.0,
        "SERVING, DRAINING",
        True,
        4.0,
    )
    assert found["workers"] == {"0": one, "1": two}
    assert found["hung"] == [2]


@pytest.mark.parametrize("answers", [{}, {0: None, 1: None}])
def test_nobody_answers(answers):
    assert merged("clients", answers)["clients"] == []
    assert merged("kill", answers) == {"killed": 0, "ids": [], "hung": sorted(answers)}
    assert merged("drain", answers) == {"hung": sorted(answers)}
