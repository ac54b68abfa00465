"""The thread that takes pushes to ``on_push``, and questions to services, while nobody is in a call: made with a
hook, or with a client that has services, ended by ``close()``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from pysock.base.green import would_block
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.unique import Unique
from pysock.engine.link import Link
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any

    from pysock.calls.answers import Answerer
    from pysock.calls.heartbeat import Heartbeat
    from pysock.calls.mailbox import GapHook, Mailbox, PushHook


class Hooked(Protocol):
    """A client with a hook."""

    _hook: Callable[[bytes], Any] | None
    _gap: Callable[[int], Any] | None


class PushReader(Unique):
    """It doesn't keep the client, which ends it by closing the link. In a forked child there is none."""

    def __init__(
        self,
        client: Hooked,
        link: Link,
        mail: Mailbox,
        backend: str,
        heart: Heartbeat,
        answerer: Answerer | None = None,
    ) -> None:
        self.thread: threading.Thread | None = None
        if not would_block(backend):
            arguments = weakref.ref(client), link, mail, heart, answerer
            self.thread = threading.Thread(target=_read, args=arguments, name="pysock pushes", daemon=True)
            self.thread.start()


def _read(client: weakref.ref[Hooked], link: Link, mail: Mailbox, heart: Heartbeat, answerer: Answerer | None) -> None:
    if not mail.calls:
        _deliver(client, mail.deliver)  # what came before there was a hook
    try:
        while not link.closed:
            if mail.has_idle():
                _deliver(client, mail.deliver_idle)
            heart.listen(link, None, has=False)
    except (PysockError, OSError) as error:
        mail.lost = str(error)
        mail.over("lost", str(error))
    if answerer is not None:
        answerer.end()
    _deliver(client, mail.deliver_idle)


def _deliver(client: weakref.ref[Hooked], deliver: Callable[[PushHook, GapHook | None], None]) -> None:
    owner = client()
    if owner is not None and owner._hook is not None:
        deliver(owner._hook, owner._gap)
