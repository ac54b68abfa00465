"""What ``python -m bench`` shows while it runs: a bar, and each table as soon as it is complete."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import tables
from bench.results import Results, Row
from bench.suite import Job, Settings

#: What the field is used to: rounds, seconds.
USUAL: Final = (5, 10.0)

#: Of what goes into a file.
FILE_WIDTH: Final = 132


class Screen:
    """A context manager. The bar is redrawn between runs only, so that it never takes time from one."""

    def __init__(self, total: int, settings: Settings) -> None:
        self.console = Console()
        if not self.console.is_terminal:
            self.console = Console(width=FILE_WIDTH)
        self.progress = Progress(
            BarColumn(30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            auto_refresh=False,
            transient=True,
        )
        self.task = self.progress.add_task("", total=total)
        self.begun = -1
        self._told: set[str] = set()
        self._introduce(settings)

    def _introduce(self, settings: Settings) -> None:
        cores = settings.cores
        where = f"server on core {cores.server}, clients on core {cores.client}"
        if cores.one:
            where = f"only core {cores.server} may be used: server and clients share it, so all figures are lower"
        self.console.print(f"rounds: {settings.rounds}, of {settings.seconds:g} s each; {where}", highlight=False)
        if (settings.rounds, settings.seconds) != USUAL:
            self.console.print(f"(usual are {USUAL[0]} rounds of {USUAL[1]:g} s)", highlight=False)

    def __enter__(self) -> Screen:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.progress.stop()

    def on_run(self, text: str) -> None:
        self.begun += 1
        self.progress.update(self.task, completed=self.begun, description=text, refresh=True)

    def on_job(self, job: Job, rows: list[Row]) -> None:
        """The bar stays below."""
        scenario = job.scenario
        if scenario.id not in self._told:
            self._told.add(scenario.id)
            self.progress.console.rule(f"{scenario.id} {scenario.title}", align="left")
            if scenario.deviation:
                self.progress.console.print(f"({scenario.deviation})", highlight=False)
        self.progress.console.print(tables.of_load(scenario, rows, self.console.width))

    def end(self, results: Results, output: Path) -> None:
        self.console.print()
        self.console.print(tables.LEGEND, highlight=False)
        self.console.rule("summary", align="left")
        self.console.print(tables.of_results(results))
        self.console.print(f"written: {output}", highlight=False, soft_wrap=True)
