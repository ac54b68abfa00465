"""A world of nodes without I/O: directories, a bus that loses and delays, and what must hold after each step.

Time is a number, and chance has a seed: a run that fails fails again. Messages of one node to another come in their
order on one path, to all or to one; those of two paths overtake each other.
"""

from __future__ import annotations

import heapq
import itertools
import random

from pysock.cluster.directory.events import Deaf, Replaced, StateEvent
from pysock.cluster.directory.machine import Directory
from pysock.cluster.directory.messages import NodeInfo
from pysock.cluster.directory.rows import Roster, id_of
from pysock.cluster.directory.words import ClusterState

#: Whoever is dead for so long, and was noticed to be by nobody, is a zombie.
NOTICED = 5.0
#: So long after everything works again all know all.
HEALED = 5.0
NEVER = float("inf")


class Host:
    """One node: its directory, the clients that it really has, and what it was like when it told of it."""

    def __init__(self, world, name, unique):
        self.world = world
        self.epoch = world.chance.getrandbits(64)
        self.name = name
        self.machine = Directory(self.epoch, NodeInfo(name), world.now, world.chance, unique)
        self.clients = {}
        self.told = {0: {}}  # number -> the rows that whoever has heard all up to it has
        self.is_paused = self.is_dead = False
        self.is_connected = False
        self.dead_since = None
        self.excused_until = 0.0  # it couldn't know
        self.due = world.now
        self.inbox = []
        self.ids = itertools.count(1)

    def connect(self):
        if not self.is_connected and not self.is_dead:
            self.is_connected = True
            self.machine.connected(self.world.now)
            self.excuse()
            self.settle()

    def disconnect(self):
        if self.is_connected and not self.is_dead:
            self.is_connected = False
            self.inbox.clear()
            self.machine.lost(self.world.now)
            self.settle()

    def excuse(self):
        self.excused_until = self.world.now + NOTICED

    def join(self, name):
        client_id = next(self.ids) << 32 | self.world.chance.randrange(4)
        self.clients[client_id] = name
        self.machine.joined(client_id, name, 0.0, self.world.now)
        self.settle()

    def leave(self, client_id):
        del self.clients[client_id]
        self.machine.left(client_id, self.world.now)
        self.settle()

    def hear(self, payload):
        if self.is_paused:
            self.inbox.append(payload)
        elif self.is_connected:
            self.machine.heard(payload, self.world.now)
            self.settle()

    def resume(self):
        self.is_paused = False
        self.excuse()
        self.settle()
        waiting, self.inbox = self.inbox, []
        for payload in waiting:
            self.hear(payload)

    def settle(self):
        """Take what the directory has to say, until it has nothing more to do now."""
        if self.is_paused or self.is_dead:
            return
        self.due = self.world.now + self.machine.step(self.world.now)
        if self.machine.own.since is None:
            self.told[self.machine.own.number] = {row[2:]: None for row in self.machine.own.roster}
        while self.machine.out:
            to, payload = self.machine.out.popleft()
            self.world.send(self, to, payload)
        while self.machine.events:
            event = self.machine.events.popleft()
            if isinstance(event, Replaced) and event.client_id in self.clients:
                self.leave(event.client_id)
            elif isinstance(event, Deaf):
                self.world.deaf += 1
            elif isinstance(event, StateEvent):
                assert event.old is not event.new


class World:
    """Hosts, and the bus between them."""

    def __init__(self, seed, hosts=3, *, unique=None, loss=0.05, latest=0.2):
        self.chance = random.Random(seed)
        self.now = self.chance.random() * 1000
        self.loss, self.latest, self.unique = loss, latest, unique
        self.names = itertools.count(1)
        self.hosts = []
        self.dead = []
        self.cuts = set()  # pairs: the second doesn't hear the first
        self.deaf = 0
        self._mail = []
        self._order = itertools.count()
        self._last = {}
        for _ in range(hosts):
            self.start()

    @property
    def running(self):
        return [host for host in self.hosts if not host.is_paused]

    def start(self):
        host = Host(self, f"n{next(self.names)}", self.unique)
        self.hosts.append(host)
        host.connect()

    def kill(self, host):
        self.hosts.remove(host)
        self.dead.append(host)
        host.is_dead, host.dead_since = True, self.now

    def stop(self, host):
        host.machine.goodbye()
        host.settle()
        self.kill(host)

    def send(self, source, to, payload):
        if not source.is_connected:
            return
        for host in self.hosts:
            if to is not None and host.epoch != to:
                continue
            if (source, host) in self.cuts or self.chance.random() < self.loss:
                continue
            path = source, host, to is None
            at = max(self._last.get(path, 0.0), self.now + self.chance.random() * self.latest)
            self._last[path] = at
            heapq.heappush(self._mail, (at, next(self._order), host, payload))

    def run(self, seconds):
        """Let time pass."""
        end = self.now + seconds
        while True:
            running = self.running
            due = min((host.due for host in running), default=NEVER)
            at = min(due, self._mail[0][0] if self._mail else NEVER)
            if at > end:
                break
            self.now = max(self.now, at)
            if self._mail and self._mail[0][0] <= self.now:
                _, _, host, payload = heapq.heappop(self._mail)
                if not host.is_dead:
                    host.hear(payload)
            else:
                min(running, key=lambda host: host.due).settle()
        self.now = end

    def heal(self):
        self.cuts.clear()
        self.loss = 0.0
        for host in self.hosts:
            if host.is_paused:
                host.resume()
            host.connect()

    # What must hold

    def check(self):
        by_epoch = {host.epoch: host for host in [*self.hosts, *self.dead]}
        for host in self.hosts:
            machine = host.machine
            assert {*host.clients} == {*machine.own.roster.rows}
            rows = [*machine.own.roster]
            for node in machine.nodes.values():
                rows += node.roster
                owner = by_epoch[node.epoch]
                self._check_roster(owner, node)
                self._check_alive(host, owner, node)
            self._check_names(machine, rows)

    def _check_roster(self, owner, node):
        """Who believes that its list is right has what its owner had when it told of that number."""
        fresh = Roster()
        for row in node.roster:
            fresh.put(row)
        assert fresh.hash == node.roster.hash
        if node.is_synced and node.number in owner.told:
            assert {row[2:]: None for row in node.roster} == owner.told[node.number], (owner.name, node.number)

    def _check_alive(self, host, owner, node):
        knows = not host.is_paused and host.is_connected and self.now > host.excused_until
        if owner.is_dead and knows and not node.is_stale and not any(to is host for _, to in self.cuts):
            assert self.now - owner.dead_since <= NOTICED + self.latest, "a zombie"

    def _check_names(self, machine, rows):
        named = {}
        for row in rows:
            if row[22:]:
                named.setdefault(row[22:], set()).add(row)
        assert {name: set(machine.names.of(name)) for name in named} == named
        assert len(machine.names._holders) == len(named)

    def check_healed(self):
        """Each directory is what all tables are together."""
        union = {host.epoch: {*host.clients} for host in self.hosts}
        for host in self.hosts:
            machine = host.machine
            seen = {node.epoch: {*node.roster.rows} for node in machine.nodes.values()}
            assert {**seen, host.epoch: {*machine.own.roster.rows}} == union
            assert machine.state is ClusterState.CONNECTED
            assert machine.foreign == 0
            assert not machine.own.since
        if self.unique:
            names = [name for host in self.hosts for name in host.clients.values() if name]
            assert len(names) == len({*names})
        winners = {
            tuple(sorted(id_of(max(m.names.of(name), key=m.rivals.rank)) for name in [*m.names._holders]))
            for m in (host.machine for host in self.hosts)
        }
        assert len(winners) <= 1, "two nodes find different clients by a name"


NAMES = [b"", b"a", b"b", b"c", b"d", b"e"]


def play(seed, steps=12):
    """Some steps by chance, all of it healed at last."""
    chance = random.Random(f"{seed} steps")
    world = World(
        seed,
        chance.randint(2, 5),
        unique=chance.choice([None, "newest", "oldest"]),
        loss=chance.choice([0.0, 0.05, 0.3]),
        latest=chance.choice([0.001, 0.2]),
    )
    for _ in range(steps):
        act(world, chance)
        world.check()
        world.run(chance.choice([0.0, 0.01, 0.3, 1.0, 4.0, 7.0]))
        world.check()
    world.heal()
    world.run(HEALED)
    world.check()
    world.check_healed()
    return world


def act(world, chance):
    """One thing happens."""
    (what,) = chance.choices([*ACTS], [*ACTS.values()])
    what(world, chance, chance.choice(world.hosts))


def come_and_go(world, chance, host):
    if host.is_paused:
        return
    for _ in range(chance.choice([1, 1, 3, 40])):
        host.join(chance.choice(NAMES))
    for client_id in chance.sample([*host.clients], chance.randint(0, min(3, len(host.clients)))):
        if client_id in host.clients:
            host.leave(client_id)


def die(world, chance, host):
    if len(world.hosts) > 1:
        world.kill(host)
        if chance.random() < 0.7:
            world.start()


def say_goodbye(world, chance, host):
    if len(world.hosts) > 1 and not host.is_paused:
        world.stop(host)


def be_born(world, chance, host):
    if len(world.hosts) < 6:
        world.start()


def pause(world, chance, host):
    if host.is_paused:
        host.resume()
    else:
        host.is_paused = True


def lose_the_bus(world, chance, host):
    if not host.is_paused:
        (host.disconnect if host.is_connected else host.connect)()


def cut(world, chance, host):
    """Two halves, or one that isn't heard, or all is well again."""
    kind = chance.choice(["halves", "one way", "none"])
    world.cuts.clear()
    if kind == "halves":
        half = {host for host in world.hosts if chance.random() < 0.5}
        world.cuts |= {(a, b) for a in world.hosts for b in world.hosts if (a in half) != (b in half)}
    elif kind == "one way":
        world.cuts |= {(host, other) for other in world.hosts}
    for one in world.hosts:
        one.excuse()


ACTS = {come_and_go: 50, die: 10, say_goodbye: 5, be_born: 5, pause: 12, lose_the_bus: 8, cut: 10}
