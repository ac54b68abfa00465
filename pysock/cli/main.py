"""The command line: ``pysock demo | serve | call | ping | bench | docs``, and what asks a running server.

click parses and validates. Each command has a file of its own; this one owns the exit codes: 0 fine, 1 the operation
failed, 2 wrong usage, 3 the server answers and is not ready, 130 Ctrl-C. Whatever goes wrong is one line on
standard error.

Each option can be set by a variable as well, for example ``PYSOCK_SERVE_BIND``; ``--help`` tells their names.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

import click

import pysock
from pysock.cli.admin.clients import clients
from pysock.cli.admin.doctor import doctor
from pysock.cli.admin.drain import drain
from pysock.cli.admin.kill import kill
from pysock.cli.admin.log import log
from pysock.cli.admin.reload import reload
from pysock.cli.admin.resume import resume
from pysock.cli.admin.scale import scale
from pysock.cli.admin.slowlog import slowlog
from pysock.cli.admin.stats import stats
from pysock.cli.admin.tail import tail
from pysock.cli.admin.top import top
from pysock.cli.bench import bench
from pysock.cli.call import call
from pysock.cli.cluster.group import cluster
from pysock.cli.demo import demo
from pysock.cli.docs import docs
from pysock.cli.options import example
from pysock.cli.output import occupy_standard_descriptors
from pysock.cli.ping import ping
from pysock.cli.serve import serve
from pysock.cli.words import explain
from pysock.demo.run import DemoError
from pysock.engine.choice import CHOICES


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

    Addresses are unix:PATH, unix:@ABSTRACT, tcp://HOST:PORT or HOST:PORT, and tls://HOST:PORT?ca=FILE.
    """
    # A path or an address may have bytes in it that the terminal's encoding can't show.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_ASKING = (top, clients, kill, stats, slowlog, tail, drain, resume, reload, scale, log, doctor)
for _command in (demo, serve, call, ping, *_ASKING, cluster, bench, docs):
    cli.add_command(_command)


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
    except (pysock.PysockError, DemoError, OSError, ImportError) as error:
        return complain(explain(error), 1)
    except ValueError as error:
        return complain(str(error), 2)
    return code or 0


def complain(text: str, code: int) -> int:
    """Write one line to standard error, if that can be written to; the exit code tells in any case."""
    with suppress(OSError):
        click.echo("pysock: " + " ".join(text.split()), err=True)
    return code
