"""The command line: ``pysock demo | serve | call | ping | bench | docs``.

click parses and validates, rich draws the demo and the documentation. This file owns the exit codes: 0 fine, 1 the
operation failed, 2 wrong usage, 130 Ctrl-C. Whatever goes wrong is one line on standard error.

Each option can be set by a variable as well, for example ``PYSOCK_SERVE_BIND``; ``--help`` tells their names.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console

import pysock
from pysock.cli.bench import bench
from pysock.cli.docs import docs
from pysock.cli.options import FRAMINGS, authkey_option, check_address, example, read_authkey
from pysock.cli.output import occupy_standard_descriptors
from pysock.cli.target import load
from pysock.cli.words import answered, as_commands_say, explain
from pysock.demo import run as demo_module
from pysock.descriptors import raise_descriptor_limit
from pysock.engine.choice import CHOICES

F = TypeVar("F", bound=Callable[..., Any])

LOG_LEVELS = ["debug", "info", "warning", "error"]


def choose_backend(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    """Set the variable: processes that we start are to choose the same."""
    if value is not None:
        os.environ["PYSOCK_BACKEND"] = value


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog=example("pysock demo"),
)
@click.version_option(pysock.__version__, prog_name="pysock")
@click.option(
    "--backend",
    type=click.Choice(CHOICES),
    callback=choose_backend,
    expose_value=False,
    show_envvar=True,
    help="The engine that runs the loop.  [default: auto]",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A socket server whose loop runs in C and whose handlers are plain Python.

    Addresses are unix:PATH, unix:@ABSTRACT, tcp://HOST:PORT or HOST:PORT.
    """
    # A path or an address may have bytes in it that the terminal's encoding can't show.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command(epilog=example("pysock demo --input README.md"))
@click.option(
    "--input",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    show_envvar=True,
    help="The text file.  [default: a module of the standard library]",
)
def demo(**options: Path | None) -> None:
    """See a server and four client processes count the words of a text file."""
    # As Ctrl-C does, so that nothing is left behind: neither client processes nor the socket file.
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        demo_module.run(options["input"] or demo_module.default_text(), Console())
    finally:
        signal.signal(signal.SIGTERM, before)


@cli.command(epilog=example("pysock serve pysock.examples.upper:upper --bind unix:upper.sock"))
@click.argument("target", metavar="MODULE:NAME")
@click.option(
    "--bind",
    metavar="ADDR",
    callback=check_address,
    multiple=True,
    show_envvar=True,
    help="Where to listen; may be repeated.",
)
@click.option("--framing", type=click.Choice(FRAMINGS), show_envvar=True, help="How bytes are cut into messages.")
@authkey_option
@click.option(
    "--insecure", is_flag=True, show_envvar=True, help="Listen also where other machines can connect, without a key."
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_envvar=True, help="How much to tell.")
@click.option(
    "--grace",
    type=click.FloatRange(0, 86_400),
    default=10.0,
    show_envvar=True,
    help="Seconds for what was accepted to be answered when it stops.",
)
def serve(target: str, bind: tuple[str, ...], log_level: str, grace: float, **options: Any) -> int:
    """Serve NAME of MODULE: a pysock.Server, or a handler(client, request).

    A Server brings its own addresses unless some are given here, and its own framing and key. MODULE is also looked for
    in the current directory. The server drains and ends on Ctrl-C or SIGTERM; a second one ends it at once.
    """
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    raise_descriptor_limit()  # before the module makes a server, whose limits follow from it
    found = load(target)
    server = make_server(found, bind, **options)
    raise_descriptor_limit(server.limits.max_clients)  # it may have asked for more
    interrupted, unwritten = watch(server)
    # A Server was made by Python code, which has parameters and no options.
    with nullcontext() if server is found else as_commands_say():
        server.serve_forever(grace=grace)
    if unwritten:
        raise unwritten[0]
    return 130 if interrupted else 0


def watch(server: pysock.Server) -> tuple[list[int], list[OSError]]:
    """Print where the server listens when it does. Of the lists that are returned the first gets a member when Ctrl-C
    ends it, the second when nobody could be told where it listens, which ends it, too.
    """
    interrupted: list[int] = []
    unwritten: list[OSError] = []

    @server.on_state
    def changed(_old: pysock.ServerState, new: pysock.ServerState) -> None:
        if new is not pysock.ServerState.SERVING:
            return
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


def note_interrupt(
    interrupted: list[int], drain: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None
) -> None:
    """Remember the signal, then do what was to be done."""
    interrupted.append(number)
    drain(number, frame)


def make_server(
    found: Any, bind: tuple[str, ...], framing: Any, authkey_file: Path | None, insecure: bool
) -> pysock.Server:
    """Return the server to run: the one found, or a new one around the handler found."""
    if isinstance(found, pysock.Server):
        given = {"--framing": framing, "--authkey-file": authkey_file, "--insecure": insecure}
        for option, value in given.items():
            if value:
                raise click.UsageError(f"{option} goes with a handler; a pysock.Server has its own")
        if found.state is not pysock.ServerState.NEW:
            raise click.ClickException(
                "the server was started while its module was imported: leave that to pysock serve, or put it behind"
                ' if __name__ == "__main__":'
            )
        if bind:
            found.listen_at(*bind)
        return found
    if not callable(found):
        kind = type(found).__name__
        raise click.UsageError(f"an object of type {kind!r} is neither a pysock.Server nor a handler(client, request)")
    if not bind:
        raise click.UsageError("a handler needs an address: --bind unix:PATH or --bind tcp://HOST:PORT")
    key = read_authkey(authkey_file)
    with as_commands_say():
        server = pysock.Server(*bind, framing=framing or "pysock", authkey=key, insecure=insecure)
        try:
            server.service(found)
        except TypeError as error:  # it isn't a plain function
            raise click.UsageError(str(error)) from error
    return server


def timeout_option(function: F) -> F:
    """Add ``--timeout``."""
    return click.option(
        "--timeout",
        type=click.FloatRange(0, 86_400, min_open=True),
        default=10.0,
        show_envvar=True,
        help="Seconds to wait for the connection, and for each answer.",
    )(function)


@cli.command(epilog=example('pysock call unix:upper.sock "hello"'))
@click.argument("address", metavar="ADDR", callback=check_address)
@click.argument("payload", default="-")
@click.option("--service", show_envvar=True, help="The service's name.  [default: the unnamed service]")
@authkey_option
@timeout_option
def call(address: str, payload: str, service: str | None, authkey_file: Path | None, timeout: float) -> None:
    """Send one request and write the reply's bytes to standard output, exactly as they are.

    PAYLOAD is the request; "-" or nothing reads it from standard input.
    """
    request = standard_input() if payload == "-" else os.fsencode(payload)
    key = read_authkey(authkey_file)
    with as_commands_say(address), pysock.connect(address, timeout=timeout, authkey=key) as client:
        try:
            reply = client.request(request, service=service, timeout=timeout)
        except pysock.RemoteError as error:
            raise pysock.RemoteError(answered(error.message, service, client.services), error.code) from error
    click.echo(reply, nl=False)


def standard_input() -> bytes:
    """Return all of it."""
    if sys.stdin is None:  # Python's way to say that the descriptor is closed
        raise click.UsageError("standard input is closed: give the PAYLOAD as an argument")
    return sys.stdin.buffer.read()


@cli.command(epilog=example("pysock ping tcp://127.0.0.1:9000 --count 3"))
@click.argument("address", metavar="ADDR", callback=check_address)
@click.option("--count", type=click.IntRange(min=1), default=4, show_envvar=True, help="How many pings.")
@click.option(
    "--interval", type=click.FloatRange(0, 86_400), default=0.2, show_envvar=True, help="Seconds between them."
)
@authkey_option
@timeout_option
def ping(address: str, count: int, interval: float, authkey_file: Path | None, timeout: float) -> None:
    """Measure how long the server takes to answer."""
    times: list[float] = []
    key = read_authkey(authkey_file)
    with as_commands_say(address):
        client = pysock.connect(address, timeout=timeout, authkey=key)
    with client:
        for number in range(1, count + 1):
            if number > 1:
                time.sleep(interval)
            with as_commands_say(address):  # not what goes wrong with standard output
                times.append(client.ping(timeout=timeout) * 1000)
            click.echo(f"pong {number} from {address}: {times[-1]:.3f} ms")
    click.echo(
        f"{count} of {count} answered, ms: {min(times):.3f} min, {statistics.median(times):.3f} median,"
        f" {max(times):.3f} max"
    )


cli.add_command(bench)
cli.add_command(docs)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Every failure becomes one line."""
    occupy_standard_descriptors()
    if sys.stdout is None:  # Python's way to say that the descriptor is closed
        return complain("standard output is closed: what is to be written there would be lost", 1)
    given = sys.stdout
    try:
        return run(arguments)
    except SystemExit:
        if sys.stdout is not given:  # at EPIPE click puts a wrapper around it, and exits
            return complain("standard output: nobody reads it any more (Broken pipe)", 1)
        raise


def run(arguments: list[str] | None) -> int:
    """As :func:`main`, where there is a standard output."""
    try:
        code = cli.main(arguments, prog_name="pysock", standalone_mode=False, auto_envvar_prefix="PYSOCK")
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "pysock"
        return complain(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except click.Abort:  # Ctrl-C, as click passes it on
        return 130
    except (pysock.PysockError, demo_module.DemoError, OSError, ImportError) as error:
        return complain(explain(error), 1)
    except ValueError as error:
        return complain(str(error), 2)
    return code or 0


def complain(text: str, code: int) -> int:
    """Write one line to standard error, if that can be written to; the exit code tells in any case."""
    with suppress(OSError):
        click.echo("pysock: " + " ".join(text.split()), err=True)
    return code
