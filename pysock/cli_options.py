"""What several commands of the command line share: the parts of their arguments, options and help."""

from __future__ import annotations

from typing import Any, Final

import click

from pysock.address import Address
from pysock.protocol import Framing

FRAMINGS: Final = [framing.name.lower() for framing in Framing]


def check_address(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    """Let pysock's own parser judge an address, or several; it stays text."""
    try:
        for address in [value] if isinstance(value, str) else value:
            Address.parse(address)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def example(text: str) -> str:
    r"""Return the end of a help text; ``\b`` keeps click from wrapping it."""
    return f"\b\nExample:\n  {text}"
