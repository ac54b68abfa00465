"""The command ``pysock``, also ``python -m pysock``. What it does is in ``cli``, which needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from pysock.cli import main as cli  # noqa: PLC0415 -- the import fails without the extra, and that gets one clear line
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write("pysock: the command line needs click and rich: install pysock-engine[cli]\n")
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
