"""Results as text: the tables of bench/README.md, and the few figures of the README."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Final

from bench.figures import short
from bench.results import CLIENT_BOUND, Results
from bench.summary import Figure, Summary, shown, summaries

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

WIDTH: Final = 120

#: Characters of the longest bar of a figure.
BAR: Final = 60

_PART: Final = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)


class NoPlace(Exception):
    """The page has no part for what was measured."""


def refresh(page: Path, part: str) -> bool:
    """Put this part between the markers; return whether that changed the page.

    :raises NoPlace: there are no markers.
    """
    text = page.read_text()
    if len(_PART.findall(text)) != 1:
        raise NoPlace(f"{page.name} has no part between {BEGIN} and {END}")
    fresh = _PART.sub(lambda _found: f"{BEGIN}\n{part}{END}", text)
    page.write_text(fresh)
    return fresh != text


def tables(results: Results) -> str:
    """What stands between the markers of bench/README.md."""
    parts = [_origin(results), *(_table(summary) for summary in summaries(results)), _legend()]
    return "\n".join(parts)


def bars(results: Results) -> str:
    """What stands between the markers of the README."""
    drawn = "\n".join(map(_bars, shown(results)))
    legend = "floor: an echo server in C without Python. Unix sockets, 64 bytes."
    return f"```text\n{drawn}```\n\n{legend}\n{_origin(results)}"


def _bars(figure: Figure) -> str:
    most = max(value for _, value in figure.values) or 1.0
    lines = [
        f"  {name:14}{short(value):>7}  {'#' * max(1, round(BAR * value / most))}\n" for name, value in figure.values
    ]
    return f"{figure.title}\n{''.join(lines)}"


def _origin(results: Results) -> str:
    environment, settings = results.environment, results.settings
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    one_core = " Server and clients had to share one core." if settings["one_core"] else ""
    quick = " Quick mode: don't trust small differences." if settings["quick"] else ""
    part = " It was interrupted: rows are missing." if settings.get("interrupted") else ""
    text = (
        f"Measured on {results.started[:10]} with {environment['processor']}, {environment['cores']} cores,"
        f" {environment['kernel']}, {environment['python']}; {packages}. Medians of {settings['rounds']} interleaved"
        f" rounds of {settings['seconds']:g} s.{one_core}{quick}{part}"
    )
    return textwrap.fill(text, WIDTH) + "\n"


def _legend() -> str:
    return (
        "N x D: N connections with D requests in flight on each. Each library in its best idiom of each row.\n"
        f"\\* client-bound: the load generator needed more than {CLIENT_BOUND:.0%} of its core.\n"
    )


def _table(summary: Summary) -> str:
    rows = [[label, *map(str, cells)] for label, cells in summary.rows]
    lines = [summary.head, ["---"] + ["---:"] * (len(summary.head) - 1), *rows]
    table = "\n".join("| " + " | ".join(cell.replace("*", r"\*") for cell in cells) + " |" for cells in lines)
    return f"{summary.title}:\n\n{table}\n"
