"""``pysock docs``: the documentation, which is part of the package.

The pages are Markdown files in ``pysock/docs``; a page's heading is its title and, behind the colon, what is in it.
"""

from __future__ import annotations

import difflib
import io
import re
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.markdown import Markdown

from pysock.cli.options import example

#: Lines longer than this are hard to read.
WIDTH: Final = 100


@click.command(epilog=example("pysock docs guide"))
@click.argument("topic", required=False)
@click.option(
    "--html",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    show_envvar=True,
    help="Write the API reference, made of the docstrings, into this directory (needs pdoc).",
)
def docs(topic: str | None, html: Path | None) -> None:
    """Show a page of the documentation; without a TOPIC, which ones there are.

    On a terminal it is laid out, and shown by $PAGER; elsewhere it is the text of the page, in Markdown.
    """
    if html is not None:
        if topic is not None:
            raise click.UsageError("--html writes the API reference, which has no topics: leave out one of the two")
        write_reference(html)
    elif topic is None:
        click.echo(contents(), nl=False)
    else:
        show(page(topic))


def pages() -> dict[str, str]:
    """The text of each page, by its topic."""
    found = (entry for entry in files("pysock").joinpath("docs").iterdir() if entry.name.endswith(".md"))
    return {entry.name[:-3]: entry.read_text(encoding="utf-8") for entry in sorted(found, key=lambda entry: entry.name)}


def contents() -> str:
    """A line for each topic."""
    lines = [f"  {topic:12} {text.partition(chr(10))[0].partition(': ')[2]}\n" for topic, text in pages().items()]
    return f"Topics of pysock docs TOPIC:\n\n{''.join(lines)}"


def page(topic: str) -> str:
    """The text of a page, without the marks that are there for the tests."""
    known = pages()
    if topic not in known:
        near = difflib.get_close_matches(topic.lower(), known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else "pysock docs lists those there are"
        raise click.UsageError(f"there is no topic {topic!r}: {advice}")
    return re.sub(r"^<!--.*-->\n", "", known[topic], flags=re.MULTILINE)


def show(text: str) -> None:
    """Show Markdown to people, or pass it on to a program."""
    terminal = Console()
    if not terminal.is_terminal:
        click.echo(text, nl=False)
        return
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=min(terminal.width, WIDTH))
    console.print(Markdown(text, hyperlinks=False))  # where they lead to is no address
    click.echo_via_pager(drawn.getvalue())


def write_reference(directory: Path) -> None:
    """Write HTML made of the docstrings of what is public."""
    try:
        import pdoc  # noqa: PLC0415 -- an extra of its own
        import pdoc.render  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "pdoc":
            raise
        raise click.ClickException(
            "the API reference is made by pdoc, which isn't installed: pip install 'pysock-engine[docs]', or in a"
            " checkout pip install -e '.[docs]'"
        ) from None
    pdoc.render.configure(docformat="restructuredtext", search=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # types that are there for type checkers only are shown as they are written
        pdoc.pdoc("pysock", "pysock.errors", "pysock.states", output_directory=directory)
    click.echo(f"{directory / 'pysock.html'}")
