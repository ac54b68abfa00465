"""``pysock serve``: run the server, or the handler, that a module has."""

from __future__ import annotations

import _thread
import logging
import signal
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from types import FrameType
from typing import Any, Final

import click

import pysock
from pysock.admin.place import checked_place
from pysock.admin.services.served import SLOW as SLOW_REQUEST
from pysock.admin.services.served import checked_slow
from pysock.cli.accesslog import access_log_option, log_access
from pysock.cli.admin.shown import span_of
from pysock.cli.clustered import cluster_options, join, take_cluster
from pysock.cli.config import takes_a_file
from pysock.cli.fdstore import fdstore_option, keep_over_restarts
from pysock.cli.handover import check_alone, hand_over_at, handover_option
from pysock.cli.options import FRAMINGS, authkey_option, check_address, example, read_authkey, tls_given, tls_options
from pysock.cli.target import load
from pysock.cli.words import as_commands_say
from pysock.cli.workers import BESIDE, WORKERS, check_no_trial, hang_option, recycling_options, supervise
from pysock.descriptors import raise_descriptor_limit
from pysock.health.control import control, may_control
from pysock.parameters import EXPOSE, SLOW
from pysock.supervision.unit import Unit, unit_of

log: Final = logging.getLogger(__name__)

#: What ``--metrics`` may say, too.
OFF: Final = "off"

LOG_LEVELS: Final = ["debug", "info", "warning", "error"]


def check_agent(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """It stays text."""
    try:
        if value is not None and pysock.Address.parse(value).transport != "tcp":
            raise click.BadParameter(f"HAProxy asks by TCP only: HOST:PORT, not {value!r}")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def check_admin(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """It stays text."""
    try:
        if value not in (None, BESIDE):
            checked_place(value)
    except ValueError as error:
        raise click.BadParameter(f"{error} (an --admin without ADDR goes behind MODULE:NAME)") from None
    return value


def check_metrics(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """It stays text; ``None``: nowhere."""
    if value in (None, OFF):
        return None
    from pysock.metrics.place import checked_exporter  # noqa: PLC0415  # few servers are measured

    try:
        checked_exporter(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def check_slow(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """In seconds."""
    try:
        found = span_of(ctx, param, value)
        return None if found is None else checked_slow(found)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@takes_a_file
@click.command(epilog=example("pysock serve pysock.examples.upper:upper --bind unix:upper.sock"))
@click.argument("target", metavar="MODULE:NAME")
@click.option(
    "--bind",
    metavar="ADDR",
    callback=check_address,
    multiple=True,
    show_envvar=True,
    help="Where to listen; may be repeated. With ?proxy=v2&trust=NETWORK behind a proxy, which says who clients are.",
)
@click.option("--framing", type=click.Choice(FRAMINGS), show_envvar=True, help="How bytes are cut into messages.")
@authkey_option
@tls_options
@click.option(
    "--insecure", is_flag=True, show_envvar=True, help="Listen also where other machines can connect, without a key."
)
@click.option(
    "--advertise",
    metavar="ADDR",
    multiple=True,
    show_envvar=True,
    help="Tell clients that the service's servers are there, this one among them; may be repeated.",
)
@cluster_options
@click.option(
    "--expose",
    type=click.Choice(EXPOSE),
    show_envvar=True,
    help="What clients are told of an exception in the handler.  [default: type]",
)
@click.option(
    "--loop",
    type=click.Choice(["auto", "asyncio", "uvloop"]),
    show_envvar=True,
    help="Where async handlers run; auto: uvloop, if it is there.",
)
@click.option(
    "--threads", type=click.IntRange(1), show_envvar=True, help="Run the handler in so many threads beside the loop."
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    show_envvar=True,
    help="Run it in so many processes; it is a handler(request) then.",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    show_envvar=True,
    help="How many requests may wait for those.  [default: 1024]",
)
@click.option(
    "--slow",
    type=click.Choice([*SLOW]),
    show_envvar=True,
    help="What becomes of a client for which too many pushes wait: it goes, or the newest or oldest of them do."
    "  [default: disconnect]",
)
@click.option(
    "--workers",
    type=WORKERS,
    metavar="N|auto",
    show_envvar=True,
    help="Serve in so many processes, with a supervisor: SIGHUP replaces them by new ones, with new code, SIGTTIN and"
    " SIGTTOU start and end one; one that dies has a successor. auto: one for each processor.",
)
@click.option(
    "--reload-timeout",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=60.0,
    show_envvar=True,
    help="Seconds for new workers to serve, or the old ones stay.",
)
@recycling_options
@hang_option
@handover_option
@fdstore_option
@access_log_option
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_envvar=True, help="How much to tell.")
@click.option(
    "--agent",
    metavar="HOST:PORT",
    callback=check_agent,
    show_envvar=True,
    help="Answer HAProxy's agent-check there: how much room there is, or that it drains.",
)
@click.option(
    "--admin",
    metavar="[ADDR]",
    is_flag=False,
    flag_value=BESIDE,
    callback=check_admin,
    show_envvar=True,
    help="Have an admin socket for pysock clients, stats and so on: unix:PATH; without one beside the first Unix ADDR.",
)
@click.option(
    "--metrics",
    metavar="ADDR",
    callback=check_metrics,
    show_envvar=True,
    help="Measure requests, and tell Prometheus there: HOST:PORT or unix:PATH; /metrics, /livez, /readyz, /statusz.",
)
@click.option(
    "--slowlog",
    metavar="TIME",
    callback=check_slow,
    show_envvar=True,
    help="Requests that take so long are in the slowlog of the admin socket: 5ms, 1s.  [default: 10ms]",
)
@click.option(
    "--drain-delay",
    type=click.FloatRange(0, 86_400),
    default=0.0,
    show_envvar=True,
    help="Seconds at SIGTERM in which only health checks fail, before clients are told.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 86_400),
    default=10.0,
    show_envvar=True,
    help="Seconds for what was accepted to be answered when it stops.",
)
def serve(
    target: str,
    bind: tuple[str, ...],
    log_level: str,
    agent: str | None,
    admin: str | None,
    metrics: str | None,
    slowlog: float | None,
    drain_delay: float,
    grace: float,
    workers: int | None,
    reload_timeout: float,
    max_requests: int | None,
    max_rss: int | None,
    max_age: float | None,
    hang_kill: float | None,
    fdstore: bool,
    handover: pysock.Address | None,
    **options: Any,
) -> int:
    """Serve NAME of MODULE: a pysock.Server, or a handler(client, request).

    A Server brings its own addresses unless some are given here, and all else that goes with a handler. MODULE is also
    looked for in the current directory. The server drains and ends on Ctrl-C or SIGTERM; a second one ends it at once.
    At a Unix socket it obeys pysock drain and pysock resume of its own user and root.
    """
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if workers is not None and fdstore:
        raise click.UsageError("--fdstore is for one process: leave out --workers")
    check_alone(handover, workers, agent, admin, metrics)
    if workers is not None:
        return supervise(
            workers, reload_timeout, grace, drain_delay, hang_kill, (max_requests, max_rss, max_age),
            target=target, bind=bind, log_level=log_level, agent=agent, admin=admin, metrics=metrics, slowlog=slowlog,
            **options,
        )  # fmt: skip
    check_no_trial()
    found, server = ready_server(target, bind, **options)
    unit = unit_of(server)
    if fdstore:
        keep_over_restarts(server, unit, grace)
    if handover is not None:
        hand_over_at(server, handover)
    interrupted, unwritten = watch(server, unit)
    # A Server was made by Python code, which has parameters and no options.
    say = nullcontext() if server is found else as_commands_say()
    with companions(server, agent, admin, metrics, slowlog), say:
        server.serve_forever(grace=grace, drain_delay=drain_delay)
    if unwritten:
        raise unwritten[0]
    return 130 if interrupted else 0


def ready_server(
    target: str, bind: tuple[str, ...], access_log: str | None, **options: Any
) -> tuple[Any, pysock.Server]:
    """Return what the module has, and the server of it that is to be run: the same, or one around a handler."""
    raise_descriptor_limit()  # before the module makes a server, whose limits follow from it
    found, cluster = load(target), take_cluster(options)
    server = make_server(found, bind, **options)
    join(server, cluster)
    raise_descriptor_limit(server.limits.max_clients)  # it may have asked for more
    if may_control(server):
        control(server)
    log_access(server, access_log)
    return found, server


def companions(
    server: pysock.Server, agent: str | None, admin: str | None, metrics: str | None, slowlog: float | None
) -> ExitStack:
    """What there is beside the server, started: it ends with the ``with`` statement."""
    with ExitStack() as stack:
        if agent is not None:
            stack.enter_context(pysock.HealthAgent(server, agent))
        if admin is not None:
            with as_commands_say():
                stack.enter_context(
                    pysock.Admin(server, None if admin == BESIDE else admin, slowlog=slowlog or SLOW_REQUEST)
                )
        if metrics is not None:
            from pysock.metrics import Exporter  # noqa: PLC0415  # few servers are measured

            stack.enter_context(Exporter(server, metrics))
        return stack.pop_all()


def watch(server: pysock.Server, unit: Unit | None) -> tuple[list[int], list[OSError]]:
    """Print where the server listens when it does. Of the lists that are returned the first gets a member when Ctrl-C
    ends it, the second when nobody could be told where it listens, which ends it, too.
    """
    interrupted: list[int] = []
    unwritten: list[OSError] = []

    @server.on_state
    def changed(_old: pysock.ServerState, new: pysock.ServerState) -> None:
        if new is not pysock.ServerState.SERVING:
            return
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else it is one that nohup(1) has started
            signal.signal(signal.SIGHUP, partial(load_again, server, unit))
        drain = signal.getsignal(signal.SIGINT)
        if callable(drain):  # serve_forever's own handler, which goes when that returns
            signal.signal(signal.SIGINT, partial(note_interrupt, interrupted, drain))
        # Last, because whoever reads this may send the signal at once.
        try:
            click.echo(f"serving on {' '.join(map(str, server.addresses))} ({server.backend} engine)")
        except OSError as error:
            unwritten.append(error)
            server.stop(0)

    return interrupted, unwritten


def load_again(server: pysock.Server, unit: Unit | None, _number: int, _frame: FrameType | None) -> None:
    """At SIGHUP. In a thread, for the signal may have come in the middle of anything."""
    work = partial(_reload, server)
    _thread.start_new_thread(work if unit is None else partial(unit.reload, work), ())


def _reload(server: pysock.Server) -> str:
    """What is told of how it failed, if it did."""
    if not any(address.transport == "tls" for address in server.addresses):
        log.warning("SIGHUP: there are no certificates to load again; new code needs a restart, or --workers")
        return ""
    try:
        server.reload_tls()
    except (ValueError, OSError, pysock.PysockError) as error:
        log.error("the certificates were not loaded again, the old ones are used on: %s", error)
        return f"serving on with the old certificates: {error}"
    return ""


def note_interrupt(
    interrupted: list[int], drain: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None
) -> None:
    """Remember the signal, then do what was to be done."""
    interrupted.append(number)
    drain(number, frame)


def make_server(found: Any, bind: tuple[str, ...], **options: Any) -> pysock.Server:
    """Return the server to run: the one found, or a new one around the handler found."""
    if isinstance(found, pysock.Server):
        return own_server(found, bind, options)
    if not callable(found):
        kind = type(found).__name__
        raise click.UsageError(f"an object of type {kind!r} is neither a pysock.Server nor a handler(client, request)")
    if not bind:
        raise click.UsageError("a handler needs an address: --bind unix:PATH or --bind tcp://HOST:PORT")
    key = read_authkey(options["authkey_file"])
    with as_commands_say():
        server = pysock.Server(
            *bind,
            framing=options["framing"] or "pysock",
            authkey=key,
            insecure=options["insecure"],
            expose=options["expose"] or "type",
            loop=options["loop"] or "auto",
            slow=options["slow"] or "disconnect",
            tls=tls_given(options),
            tls_driver=options["tls_driver"] or "auto",
            advertise=options["advertise"] or None,
        )
        try:
            register: Any = server.service(None, **{name: options[name] for name in ("threads", "processes", "queue")})
            register(found)
        except TypeError as error:  # it can't be a handler
            raise click.UsageError(str(error)) from error
    return server


def own_server(found: pysock.Server, bind: tuple[str, ...], options: dict[str, Any]) -> pysock.Server:
    """Return the server found, which listens there if something is said."""
    for name, value in options.items():
        if value:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with a handler; a pysock.Server has its own")
    if found.state is not pysock.ServerState.NEW:
        raise click.ClickException(
            "the server was started while its module was imported: leave that to pysock serve, or put it behind"
            ' if __name__ == "__main__":'
        )
    if bind:
        found.listen_at(*bind)
    return found
