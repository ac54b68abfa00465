"""The directory of a cluster in ten thousand worlds of chance: see ``help/simulated.py``."""

from __future__ import annotations

import simulated

from lab.experiment import Experiment, Failed, Scale


def worlds(scale: Scale) -> str:
    """Each with its own seed."""
    count, messages, fetched = scale.of(200, 10_000), 0, 0
    for number in range(count):
        seed = f"{scale.seed} {number}"
        try:
            world = simulated.play(seed)
        except AssertionError as error:
            raise Failed(f"simulated.play({seed!r}): {error}") from error
        messages += next(world._order)
        fetched += sum(host.machine.fetched for host in world.hosts)
        if not number % 500:
            scale.say(f"{number} worlds")
    return f"{count} worlds, {messages} messages, {fetched} lists fetched; all know all again"


EXPERIMENTS = [Experiment("directory", "nodes that are deaf, stopped, cut off and killed, without I/O", worlds)]
