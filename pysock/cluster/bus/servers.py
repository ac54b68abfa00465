"""URLs of buses that are servers: what is in one, and the same without its secrets."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence


def servers_of(url: str, schemes: Sequence[str], example: str) -> list[str]:
    """The servers in a URL, one or several with commas between them; each with its scheme, which the first one tells.

    :raises ParameterError: it isn't of that form.
    """
    scheme = url.partition("://")[0]
    found = []
    for one in url.split(","):
        whole = one if "://" in one else f"{scheme}://{one}"
        _check(url, whole, schemes, example)
        found.append(whole)
    return found


def without_secrets(servers: list[str]) -> str:
    """For errors and logs."""
    split = [urlsplit(one) for one in servers]
    return ",".join(f"{one.scheme}://{one.netloc.rpartition('@')[2]}{one.path}" for one in split)


def _check(url: str, one: str, schemes: Sequence[str], example: str) -> None:
    try:
        split: SplitResult | None = urlsplit(one)
        good = split is not None and split.scheme in schemes and bool(split.hostname) and split.port != 0
    except ValueError:  # the port is no number, or too large
        split, good = None, False
    if not good:
        shown = without_secrets([url]) if url.count("@") == 1 and split is not None else url.rpartition("@")[2]
        problem = f"must name a host, and a port where it isn't the usual one, not {shown!r}"
        raise ParameterError("url", problem, advice=example, name="the URL of a bus")
