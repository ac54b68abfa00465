"""Whatever happens to the servers of a service, a client knows where to go next: by chance, and a fake clock."""

from __future__ import annotations

import random

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pysock import Address
from pysock.balance.balancer import Balancer
from pysock.balance.order import ORDERS
from pysock.balance.policy import ASIDE
from pysock.balance.targets import nodes_of
from pysock.wire.nodes import NodeList, NodeRow

HOSTS = [f"tcp://10.0.0.{n}:9" for n in range(1, 7)]


class Service(RuleBasedStateMachine):
    """Beside the balancer goes what is true in any case: who is connected, who must be listed, who can't be aside."""

    @initialize(
        seeds=st.lists(st.sampled_from(HOSTS), min_size=1, unique=True),
        mode=st.sampled_from([*ORDERS]),
        seed=st.integers(0, 9),
    )
    def begin(self, seeds, mode, seed):
        self.now = 1000.0
        self.seeds, self.listed, self.version = seeds, [], 0
        self.open = []
        self.failed_lately = {}
        self.one = Balancer(tuple(map(Address.parse, seeds)), mode, discovers=True, chance=random.Random(seed))

    def _round(self):
        return self.one.round(nodes_of(self.one.wanted()), self.now)

    @rule(fails=st.lists(st.booleans(), min_size=8, max_size=8))
    def connects(self, fails):
        attempts, tried = self._round(), []
        for failed in fails:
            target = attempts.next()
            if target is None:
                break
            tried.append(target.key)
            self.one.begins(target.address)
            if not failed:
                self.one.let_in(target.address, self.now)
                attempts.came(None)
                self.open.append(target.address)
                self.failed_lately[target.key] = 0
                break
            self.one.failed(target.address, self.now)
            self.failed_lately[target.key] = self.failed_lately.get(target.key, 0) + 1
            assert attempts.failed(target, ConnectionRefusedError(111, "no"))
        else:
            raise AssertionError("there are never so many")
        assert len(tried) == len(set(tried))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), lost=st.booleans())
    def ends(self, which, lost):
        self.one.ended(self.open.pop(which % len(self.open)), self.now, lost=lost)

    @rule(seconds=st.sampled_from([0.01, 1.0, ASIDE, 2000.0]))
    def passes(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.open)
    @rule(listed=st.lists(st.sampled_from(HOSTS), unique=True), which=st.integers(0, 99))
    def is_told(self, listed, which):
        at = self.open[which % len(self.open)]
        self.version += 1
        before = self.listed
        gone = self.one.told(at, NodeList(self.version.to_bytes(8, "big"), (NodeRow(tuple(listed)),)))
        assert not gone or str(at) not in listed
        if str(at) in before and str(at) not in listed:
            assert gone
        self.listed = listed

    @rule()
    def forks(self):
        self.one.forked()
        self.open = []

    @invariant()
    def everybody_is_asked_once_and_half_of_them_at_once(self):
        """A round has all that are known; those that are aside come last, and are at most half of them."""
        known = {*self.seeds, *self.listed}
        attempts, keys = self._round(), []
        while (target := attempts.next()) is not None:
            keys.append(target.key)
            attempts.failed(target, ConnectionRefusedError(111, "no"))
        assert sorted(keys) == sorted(known)
        aside = self.one._nodes.aside(keys, self.now)
        assert len(aside) <= len(keys) // 2
        gone = {key for key in keys if key in self.one._gone}
        late = aside | gone
        assert set(keys[len(keys) - len(late) :]) == late
        assert not gone & set(self.listed)

    @invariant()
    def connections_are_counted(self):
        counts = {key: node.connections for key, node in self.one._nodes._nodes.items() if node.connections}
        opened = [str(address) for address in self.open]
        assert counts == {key: opened.count(key) for key in opened}


TestService = Service.TestCase
TestService.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
