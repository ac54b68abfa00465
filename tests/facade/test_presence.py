"""What a server tells the cluster that it is a node of, before anything of a cluster is there."""

from __future__ import annotations

import pytest
from support import running, wait_for

import pysock


class Told:
    """In the place of a cluster."""

    has_async = False

    def __init__(self):
        self.events = []

    def bind(self, server, running):
        self.events.append("bind")

    def serve(self, engine):
        self.events.append("serve")

    def joined(self, client_id):
        self.events.append(("joined", client_id))

    def left(self, client_id):
        self.events.append(("left", client_id))

    def state_changed(self, state):
        self.events.append(state.name)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_cluster_hears_of_its_server_and_of_each_client(make_server, unix_address, hooked):
    told = Told()
    server = make_server(unix_address, cluster=told)
    server.service(lambda client, request: request)
    if hooked:
        server.on_join(lambda client, row: None)
        server.on_leave(lambda client, left: None)
    assert server.cluster is told
    with running(server):
        with pysock.connect(unix_address) as client:
            client.request(b"x")
            assert "_nodes" in client.services
            (client_id,) = server.clients
        wait_for(lambda: ("left", client_id) in told.events)
        assert told.events.index(("joined", client_id)) < told.events.index(("left", client_id))
        assert told.events.index("serve") < told.events.index("SERVING")
    assert told.events[0] == "bind"
    assert told.events[-2:] == ["DRAINING", "CLOSED"]


def test_a_server_can_be_told_later_that_it_is_a_node(make_server, unix_address):
    told = Told()
    server = make_server(unix_address)
    server.service(lambda client, request: request)
    with pytest.raises(pysock.PysockError, match="no node of a cluster"):
        assert server.cluster
    server.join_cluster(told)
    assert server.cluster is told
    with pytest.raises(pysock.PysockError, match="a node of a cluster already"):
        server.join_cluster(Told())
    with running(server), pysock.connect(unix_address) as client:
        assert "_nodes" in client.services
    assert told.events.index("bind") < told.events.index("serve") < told.events.index("SERVING")
    late = make_server(unix_address, framing="line")
    late.service(lambda client, request: request)
    with running(late), pytest.raises(pysock.PysockError, match="can't join a cluster any more"):
        late.join_cluster(Told())


def test_groups_tell_of_their_first_and_last_client(make_server, unix_address):
    server, told = make_server(unix_address), []
    server.clients.groups.watch = lambda name: told.append((name, server.clients.groups.count(name)))
    server.service(lambda client, request: client.join("red"))
    with running(server), pysock.connect(unix_address) as one:
        one.request(b"")
        with pysock.connect(unix_address) as other:
            other.request(b"")
        wait_for(lambda: len(server.clients) == 1)
        assert told == [("red", 1)]
        one.close()
        wait_for(lambda: told == [("red", 1), ("red", 0)])


def test_a_server_without_a_cluster_says_so(make_server, unix_address):
    with pytest.raises(pysock.PysockError, match="cluster="):
        _ = make_server(unix_address).cluster
