"""``python -m pysock.cli.worker FD``: what ``pysock serve --workers`` starts, to be told the rest by that descriptor.

This file owns what becomes of a worker that can't serve: it tells the supervisor why, which says it once for all.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

import pysock
from pysock.cli.output import occupy_standard_descriptors
from pysock.cli.serve import ready_server
from pysock.cli.words import as_commands_say, explain
from pysock.supervision.post import Post


def main(fd: int) -> int:
    """Serve to the end; the value is the exit code."""
    occupy_standard_descriptors()
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)  # one to all processes of this name: not meant for this
    post = Post(fd)
    level = post.told["arguments"].pop("log_level")
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s %(levelname)s worker {post.number}: %(name)s: %(message)s"
    )
    try:
        work(post, **post.told["arguments"])
    except click.UsageError as error:
        return gave_up(post, error.format_message(), 2)
    except click.ClickException as error:
        return gave_up(post, error.format_message(), error.exit_code)
    except pysock.HandoverFailed as error:
        return gave_up(post, f"{error} (pysock reload --cold moves no clients)", 1)
    except (pysock.PysockError, OSError, ImportError) as error:
        return gave_up(post, explain(error), 1)
    except ValueError as error:
        return gave_up(post, str(error), 2)
    return 0


def work(
    post: Post, grace: float, drain_delay: float, authkey_file: str | None, node: str | None, **given: Any
) -> None:
    """As the command ``pysock serve``, in a worker's place.

    :param node: what the nodes of a cluster are called that the workers are: each is one, and so is its successor,
        which serves beside it for a moment.
    """
    if given["cluster_ready"] is not None:
        raise click.UsageError("--cluster-ready is of one process: with --workers /readyz is the supervisor's")
    given["node"] = None if node is None else f"{node}-{os.getpid()}"
    found, server = ready_server(authkey_file=None if authkey_file is None else Path(authkey_file), **given)
    post.take(server)
    with nullcontext() if server is found else as_commands_say():
        server.serve_forever(grace=grace, drain_delay=drain_delay)


def gave_up(post: Post, why: str, code: int) -> int:
    """Tell it; the value is the exit code."""
    post.failed(" ".join(why.split()), code)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
