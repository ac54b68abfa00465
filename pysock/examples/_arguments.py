"""What the examples share: the option ``--bind``, and one-line errors.

The standard library is enough for that: the examples run without the ``cli`` extra.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import pysock
from pysock.errors import GIVE_KEY, KEEP_OTHERS_OUT

#: What the library advises programs to pass, which the examples have no options for -> what follows the problem here.
_NO_OPTIONS: Final = {
    KEEP_OTHERS_OUT: ": listen at 127.0.0.1 or [::1]",
    GIVE_KEY: ", and this example has no option for one",
}


def parser(module: str, text: str | None, bind: str) -> argparse.ArgumentParser:
    """Return a parser that knows ``--bind`` (its default is ``bind``) and shows ``text``, the module's docstring."""
    result = argparse.ArgumentParser(
        prog=f"python -m pysock.examples.{module}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--bind",
        metavar="ADDR",
        action="append",
        help=f"unix:PATH or tcp://HOST:PORT; may be given several times (default: {bind})",
    )
    # A default list would be appended to, so the default comes in after parsing.
    result.set_defaults(bind_default=[bind])
    return result


def addresses(options: argparse.Namespace) -> list[str]:
    """Return the addresses given with ``--bind``, or the default."""
    return list(options.bind or options.bind_default)


def serve(server: pysock.Server) -> None:
    """Serve until Ctrl-C or SIGTERM. The first line of output says where: the kernel may have chosen the port."""

    @server.on_state
    def announce(_old: pysock.ServerState, new: pysock.ServerState) -> None:
        if new is pysock.ServerState.SERVING:
            print("serving on", *server.addresses, flush=True)

    server.serve_forever()


@contextlib.contextmanager
def needs_extra(extra: str, module: str) -> Iterator[None]:
    """Around imports: where the example is run as a program, one line says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if module != "__main__":
            raise
        sys.exit(_say(f"{error.name} is missing: install pysock-engine[{extra}]", 2))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what the user can cause (a bad address, nobody there, Ctrl-C) into one line and an exit code."""
    try:
        yield
    except (pysock.PysockError, OSError) as error:
        sys.exit(_say(_words(error), 1))
    except ValueError as error:
        sys.exit(_say(_words(error), 2))
    except KeyboardInterrupt:
        sys.exit(130)


def _words(error: Exception) -> str:
    advice = getattr(error, "advice", "")
    if advice in _NO_OPTIONS:
        return f"{vars(error)['problem']}{_NO_OPTIONS[advice]}"
    return getattr(error, "strerror", None) or str(error)


def _say(text: str, code: int) -> int:
    print(f"{sys.argv[0].rpartition('/')[2]}: {text}", file=sys.stderr)
    return code
