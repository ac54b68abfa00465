"""The directory of a cluster in a world of chance: whatever is lost, late, cut, stopped or killed, all know all again.

What must hold after each step is in ``help/simulated.py``. More runs: ``python -m tests.lab --only directory``.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import simulated
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pysock.cluster.directory.node import Node
from pysock.cluster.directory.own import Own
from pysock.cluster.directory.words import ClusterState


@pytest.mark.parametrize("block", range(4))
def test_whatever_happens_all_know_all_again(block):
    for seed in range(20):
        simulated.play(f"{block} {seed}", steps=6)


def test_a_world_notices_what_is_wrong(monkeypatch):
    """The test of the test: a batch that is taken though another one is missing, and one that is never told."""

    def batch(self, batch, size):
        self._apply(batch)
        return True

    with monkeypatch.context() as broken:
        broken.setattr(Node, "batch", batch)
        with pytest.raises(AssertionError):
            [simulated.play(seed, steps=6) for seed in range(30)]
    with monkeypatch.context() as broken:
        broken.setattr(Own, "left", lambda self, client_id, now: self.roster.take(client_id))
        with pytest.raises(AssertionError):
            [simulated.play(seed, steps=6) for seed in range(30)]


class Cluster(RuleBasedStateMachine):
    """Three nodes that somebody malicious plays with, instead of chance."""

    @initialize(unique=st.sampled_from([None, "newest", "oldest"]), latest=st.sampled_from([0.001, 0.3]))
    def begin(self, unique, latest):
        self.world = simulated.World(1, 3, unique=unique, loss=0.0, latest=latest)

    @rule(which=st.integers(0, 2), name=st.sampled_from(simulated.NAMES), times=st.sampled_from([1, 2, 50]))
    def joins(self, which, name, times):
        host = self.world.hosts[which]
        if not host.is_paused:
            for _ in range(times):
                host.join(name)

    @rule(which=st.integers(0, 2), client=st.integers(0, 99))
    def leaves(self, which, client):
        host = self.world.hosts[which]
        if host.clients and not host.is_paused:
            host.leave([*host.clients][client % len(host.clients)])

    @rule(which=st.integers(0, 2))
    def is_killed_and_starts_again(self, which):
        self.world.kill(self.world.hosts[which])
        self.world.start()

    @rule(which=st.integers(0, 2))
    def is_stopped_or_goes_on(self, which):
        host = self.world.hosts[which]
        if host.is_paused:
            host.resume()
        else:
            host.is_paused = True

    @rule(which=st.integers(0, 2))
    def loses_the_bus_or_has_it_again(self, which):
        host = self.world.hosts[which]
        if not host.is_paused:
            (host.disconnect if host.is_connected else host.connect)()

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def is_not_heard(self, one, other):
        self.world.cuts.add((self.world.hosts[one], self.world.hosts[other]))
        for host in self.world.hosts:
            host.excuse()

    @rule(loss=st.sampled_from([0.0, 0.5]))
    def the_bus_loses(self, loss):
        self.world.loss = loss

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.5, 31.0]))
    def passes(self, seconds):
        for host in self.world.hosts:
            if self.world.loss:
                host.excuse()
        self.world.run(seconds)

    @precondition(lambda self: self.world.hosts)
    @rule()
    def heals(self):
        self.world.heal()
        self.world.run(simulated.HEALED)
        self.world.check_healed()

    @invariant()
    def holds(self):
        self.world.check()
        for host in self.world.hosts:
            assert (host.machine.state is ClusterState.LOST) is not host.is_connected


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
