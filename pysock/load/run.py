"""One run of the load generator, in a thread of its own or in the caller's, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pysock.address import AddressLike, as_address
from pysock.base.aliases import SocketAddress
from pysock.base.unique import Unique
from pysock.engine.native.outcome import Failure, Outcome, Progress
from pysock.engine.said import REINSTALL
from pysock.files.place import reachable
from pysock.load.options import LoadOptions
from pysock.load.result import LoadResult, made_of
from pysock.load.words import LoadError, explain
from pysock.wire.cir import encode_cir
from pysock.wire.framing import FRAMING_BY_NAME

if TYPE_CHECKING:
    from pysock.engine.native.load import NativeLoad

#: Seconds between two looks for signals.
_SLICE: Final = 0.1


class Load(Unique):
    """One run. ``result`` is there when it ended, also by ``stop`` or Ctrl-C; not when it failed.

    :raises ImportError: without the extension.
    """

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self.result: LoadResult | None = None
        self._driver = _driver()
        self._running: NativeLoad | None = None
        self._lock = threading.Lock()  # of what may be stopped: nothing that is freed already
        self._stopped = False

    def run(self, on_progress: Callable[[Progress], None] | None = None, interval: float = 0.1) -> LoadResult:
        """Do it. Meanwhile ``on_progress`` is called in this thread, every ``interval`` seconds.

        :raises LoadError: the server answered wrongly, or not at all.
        :raises OSError: no connection.
        :raises KeyboardInterrupt: at Ctrl-C, after it was stopped.
        """
        with reachable(self.options.address) as targets:
            for target in targets:
                outcome = self._run_at(target, on_progress, interval)
                # The next address of the host, if nobody listens at this one.
                if outcome.failure != Failure.CONNECT or outcome.connections:
                    break
        if outcome.failure != Failure.WELL:
            raise explain(outcome, self.options)
        assert self.result is not None
        if not (outcome.messages or outcome.errors or self._stopped):
            raise LoadError(f"{self.options.address}: nothing was answered in {self.result.seconds:.3g} seconds")
        return self.result

    def stop(self) -> None:
        """End it now; from any thread."""
        with self._lock:
            self._stopped = True
            if self._running is not None:
                self._running.stop()

    def _run_at(
        self, target: SocketAddress, on_progress: Callable[[Progress], None] | None, interval: float
    ) -> Outcome:
        running = _made(self._driver, self.options, target)
        with self._lock:
            self._running = running
            if self._stopped:
                running.stop()
        try:
            if on_progress is None:
                while running.run(_SLICE):  # so that Python can look after its signals in between
                    pass
            else:
                _run_in_thread(running, on_progress, interval)
        finally:
            outcome = self._finish(running)
        return outcome

    def _finish(self, running: NativeLoad) -> Outcome:
        running.stop()  # at Ctrl-C it isn't over yet
        running.run()
        outcome, histogram = running.outcome(), running.histogram()
        with self._lock:
            self._running = None
        running.close()
        if outcome.failure == Failure.WELL:
            self.result = made_of(self.options, outcome, histogram)
        return outcome


def run_load(address: AddressLike, **options: Any) -> LoadResult:
    """Run the load generator against a server that echoes; ``options`` are those of :class:`LoadOptions`."""
    return Load(LoadOptions(address=as_address(address), **options)).run()


def _made(driver: type[NativeLoad], options: LoadOptions, target: SocketAddress) -> NativeLoad:
    return driver(
        target,
        cir=encode_cir() if options.framing == "pysock" else b"",
        service=options.service,
        framing=FRAMING_BY_NAME[options.framing],
        mode=options.mode,
        connections=options.connections,
        in_flight=options.in_flight,
        size=options.size,
        rate=options.rate or 0.0,
        duration=options.duration or 0.0,
        count=options.count or 0,
        linger=options.linger,
        stall=options.stall,
    )


def _run_in_thread(running: NativeLoad, on_progress: Callable[[Progress], None], interval: float) -> None:
    """So that showing the progress takes no time from the run.

    Without it there is no thread: in a process that has only one the kernel's calls cost a little less.
    """
    worker = threading.Thread(target=running.run, name="pysock-load", daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(interval)
            on_progress(running.progress())
    finally:
        running.stop()
        worker.join()


def _driver() -> type[NativeLoad]:
    try:
        from pysock.engine.native.load import NativeLoad  # noqa: PLC0415  # part of the extension
    except ModuleNotFoundError as error:
        if error.name != "pysock._engine":
            raise
        raise ImportError(
            "the load generator is part of the native engine, which isn't installed: install it again to see why it"
            f" wasn't built, with {REINSTALL}"
        ) from error
    return NativeLoad
