"""Who hears what, in one node: the subscriptions under a subject, of which the bus knows one of each kind."""

from __future__ import annotations

import random
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    from pysock.cluster.bus.contract import Hears

    #: A subject, and whether one of many hears each message.
    Route: TypeAlias = tuple[bytes, bool]


class Subscribed:
    """One subscription: as :class:`pysock.cluster.bus.contract.Subscription`."""

    def __init__(self, route: Route, heard: Hears, leave: Callable[[Subscribed], None]) -> None:
        self.route = route
        self.heard = heard
        self.is_ended: bool = False
        self._leave = leave

    def end(self) -> None:
        """Hear no more. Called again it does nothing."""
        if not self.is_ended:
            self.is_ended = True
            self._leave(self)


class Routes:
    """One thread's own."""

    def __init__(self) -> None:
        self._subscribed: dict[Route, tuple[Subscribed, ...]] = {}

    def add(self, one: Subscribed) -> bool:
        """Whether it is the first of its route."""
        before = self._subscribed.get(one.route, ())
        self._subscribed[one.route] = (*before, one)
        return not before

    def remove(self, one: Subscribed) -> bool:
        """Whether nobody is left on its route."""
        left = tuple(other for other in self._subscribed.get(one.route, ()) if other is not one)
        if left:
            self._subscribed[one.route] = left
            return False
        return self._subscribed.pop(one.route, None) is not None

    def all(self) -> list[Route]:
        """Those on which somebody hears."""
        return list(self._subscribed)

    def on(self, route: Route) -> tuple[Subscribed, ...]:
        """Who gets a message: everybody, or one of all."""
        found = self._subscribed.get(route, ())
        return (random.choice(found),) if route[1] and len(found) > 1 else found  # noqa: S311  # no secret
