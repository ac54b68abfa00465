"""``pysock serve --workers``: the program in several processes, behind one address.

This file owns the option, and what a supervisor is told of the command.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import pysock
from pysock.admin.place import checked_place
from pysock.admin.services.served import SLOW
from pysock.cli.words import as_commands_say
from pysock.supervision.line import can_be
from pysock.supervision.notify import notifier

if TYPE_CHECKING:
    from pysock.supervision.office import Office
    from pysock.supervision.supervisor import Supervisor

log: Final = logging.getLogger(__name__)

AUTO: Final = "auto"
#: What ``--admin`` is where no address follows.
BESIDE: Final = "beside"
#: What starts a worker, behind the interpreter.
COMMAND: Final = ("-m", "pysock.cli.worker")
#: More processes than that aren't meant.
MOST: Final = 1024


class NeverReady(click.ClickException):
    """The service never came to serve."""

    def __init__(self, why: str, code: int = click.ClickException.exit_code) -> None:
        super().__init__(why)
        self.exit_code = code  # type: ignore[misc]  # click takes it from the object, too


class _Workers(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A number; ``auto`` is one for each processor that this process may use."""

    name = "number or word"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See the class."""
        text = str(value)
        if text == AUTO:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        number = int(text) if text.isascii() and text.isdigit() else 0
        if not 1 <= number <= MOST:
            self.fail(f"{text!r} isn't a number from 1 to {MOST}, nor {AUTO!r}", param, ctx)
        return number


WORKERS: Final[Any] = _Workers()


def recycling_options(command: Any) -> Any:
    """What a worker is replaced at."""
    for name, kind, what in (
        ("age", click.FloatRange(0, min_open=True), "SECONDS since its start"),
        ("rss", click.IntRange(1), "MiB of memory"),
        ("requests", click.IntRange(1), "N requests"),
    ):
        command = click.option(
            f"--max-{name}",
            metavar=what.split()[0],
            type=kind,
            show_envvar=True,
            help=f"Replace a worker by a new one after {what}, or up to a tenth less.",
        )(command)
    return command


hang_option: Callable[[Any], Any] = click.option(
    "--hang-kill",
    metavar="SECONDS",
    type=click.FloatRange(3, 86_400),
    show_envvar=True,
    help="Kill a worker whose loop hasn't come round for so long: it has a successor.  [default: never]",
)


def check_no_trial() -> None:
    """Refuse to serve without workers as what a supervisor is to become: it tries that first, and has some."""
    from pysock.supervision.anew.again import is_trial  # noqa: PLC0415  # who has no workers hardly pays for it

    if is_trial():
        raise click.UsageError("there is no --workers any more, so there would be no supervisor: restart the service")


@contextmanager
def companions(supervisor: Supervisor, office: Office | None, agent: str | None, metrics: str | None) -> Iterator[None]:
    """What there is beside the workers, in threads of the supervisor's process; as of a single server."""
    roster, ledger = supervisor.roster, supervisor.ledger
    found: list[AbstractContextManager[object]] = [] if office is None else [office]
    if agent is not None:
        found.append(pysock.HealthAgent(roster.agent_line, agent))
    if metrics is not None:
        from pysock.metrics import Exporter  # noqa: PLC0415  # few services are measured

        sources, extra = partial(ledger.sources, roster), partial(ledger.families, roster)
        found.append(Exporter(sources, metrics, extra=extra, ready=roster.why_not_ready))
    with ExitStack() as stack, as_commands_say():
        for one in found:
            try:
                stack.enter_context(one)
            except OSError as error:  # noqa: PERF203  # a few of them
                if not supervisor.is_taken_up:  # else the service is there, and goes on
                    raise
                log.error("what was there beside the workers isn't any more: %s", error)
        yield


def supervise(
    workers: int,
    patience: float,
    grace: float,
    drain_delay: float,
    hang_kill: float | None,
    bounds: Sequence[float | None],
    **given: Any,
) -> int:
    """Run the service to its end; the value is the exit code."""
    from pysock.supervision.anew.again import is_trial, run_anew, taken_up  # noqa: PLC0415  # likewise
    from pysock.supervision.office import Office  # noqa: PLC0415  # likewise
    from pysock.supervision.plan import Plan  # noqa: PLC0415  # who has no workers doesn't pay for it
    from pysock.supervision.recycling import Bounds  # noqa: PLC0415  # likewise
    from pysock.supervision.supervisor import Supervisor  # noqa: PLC0415  # likewise

    if not can_be():
        raise click.UsageError("--workers needs Unix sockets of the kind SEQPACKET, which this system hasn't")
    agent, admin, metrics, slowlog = (given.pop(name) for name in ("agent", "admin", "metrics", "slowlog"))
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    arguments |= {"grace": grace, "drain_delay": drain_delay}
    requests, mebibytes, age = bounds
    rss = None if mebibytes is None else mebibytes * 1024**2
    plan = Plan(workers, COMMAND, arguments, grace, drain_delay, patience, hang_kill, Bounds(requests, rss, age),
                metrics is not None, admin is not None, slowlog or SLOW)  # fmt: skip
    if is_trial():
        return 0
    told = taken_up()
    while True:
        supervisor = Supervisor(plan, click.echo, notifier(), told)
        office = None if admin is None else Office(supervisor, None if admin == BESIDE else checked_place(admin))
        with closing(supervisor), companions(supervisor, office, agent, metrics):
            code = supervisor.run()
        if supervisor.failed is not None:
            raise NeverReady(*supervisor.failed)
        if supervisor.anew is None:
            return code
        told = run_anew(supervisor.anew)
