"""The README and the pages of ``pysock/docs``, taken apart: blocks, programs, tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from support import ROOT

FOLDER = ROOT / "pysock" / "docs"

#: Path, from the root -> text.
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted(FOLDER.glob("*.md"))]}
README = PAGES["README.md"]
ALL = "\n".join(PAGES.values())


def topic(name: str) -> str:
    """The text of a page of the folder."""
    return PAGES[f"pysock/docs/{name}.md"]


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Marker (may be empty), language and text of each fenced block."""
    found = re.findall(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) * 2 == len(re.findall("^```", text, re.MULTILINE))
    return found


def marked(text: str, kind: str) -> dict[str, str]:
    """The blocks below ``<!-- kind: NAME -->``, by their names."""
    found = [(marker.removeprefix(f"{kind}: "), block) for marker, _, block in blocks(text)
             if marker.startswith(f"{kind}: ")]  # fmt: skip
    assert len(dict(found)) == len(found)
    return dict(found)


def programs(text: str) -> list[tuple[str, str, str]]:
    """Marker and text of each Python program, and the output that is shown below it."""
    return [
        (marker, block, following[2] if following[:2] == ("", "text") else "")
        for (marker, language, block), following in pairwise([*blocks(text), ("", "", "")])
        if language == "python"
    ]


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Head and rows of each table."""
    for found in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in found.splitlines())
        assert all(len(row) == len(head) for row in rows), found
        yield head, rows


def table(text: str, *head: str) -> list[list[str]]:
    """The rows of the one table whose head begins so."""
    (rows,) = [rows for found, rows in tables(text) if found[: len(head)] == list(head)]
    return rows


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall("`([^`\n]+)`", cell)


def prose(text: str) -> str:
    """Without the blocks."""
    return re.sub("^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What a link may name behind ``#``."""
    headings = re.findall("^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in headings}


def links(text: str) -> list[str]:
    """Where links lead."""
    return re.findall(r"\]\(([^)]*)\)", prose(text))


def target(page: str, link: str) -> Path:
    """The file that a link of this page leads to."""
    path = link.partition("#")[0]
    return (ROOT / page).parent / path if path else ROOT / page
