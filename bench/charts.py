"""Results as drawings: one SVG for each scenario, a panel for each load."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from bench.figures import METRICS, short
from bench.results import Results, Row
from bench.scenarios import SCENARIOS, Scenario

COLUMNS: Final = 3
WIDTH, BAR = 5.2, 0.24  # inches

_COLOURS: Final = {
    "floor": "#8c8c8c",
    "engine only": "#5b5b5b",
    "pysock": "#c44e52",
    "uvloop": "#4c72b0",
    "asyncio": "#55a868",
    "gevent": "#8172b3",
    "socketserver": "#937860",
    "mp": "#da8bc3",
}
_OTHER: Final = "#ccb974"

# Text as text, so that files stay small and can be searched; the same input gives the same file.
_STYLE: Final = {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 8.0}


def draw(results: Results, directory: Path) -> list[Path]:
    """Write ``S1.svg`` ... for what was measured."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for scenario in SCENARIOS:
        panels = [_panel(results, scenario, load, own) for load, own in results.loads(scenario.id)]
        panels = [panel for panel in panels if panel[1]]
        if panels:
            drawn.append(directory / f"{scenario.id}.svg")
            with mpl.rc_context(_STYLE):
                _draw_scenario(scenario, panels, footnote(results), drawn[-1])
    return drawn


def _panel(results: Results, scenario: Scenario, load: str, own: bool) -> tuple[str, list[Row]]:
    rows = [row for row in results.of(scenario.id, load, own) if row.median(scenario.figure) is not None]
    return load + (" (Python clients)" if own else ""), rows


def footnote(results: Results) -> str:
    """Where and how it was measured."""
    environment, settings = results.environment, results.settings
    changed = " and changes" if environment.get("changed") else ""
    return (
        f"{results.started[:10]}, {environment['processor']}, {environment['kernel']}, {environment['python']};"
        f" commit {str(environment['commit'])[:10]}{changed}; medians of {settings['rounds']} x"
        f" {settings['seconds']:g} s, lines from the least to the most; * client-bound"
    )


def _draw_scenario(scenario: Scenario, panels: list[tuple[str, list[Row]]], note: str, path: Path) -> None:
    columns = min(COLUMNS, len(panels))
    lines = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    heights = [0.7 + BAR * max(len(rows) for _, rows in line) for line in lines]
    figure = Figure(figsize=(WIDTH * columns, sum(heights) + 0.9), layout="constrained")
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    for y, line in enumerate(lines):
        for x, (title, rows) in enumerate(line):
            _draw_panel(figure.add_subplot(grid[y, x]), title, rows, scenario.figure)
    metric = METRICS[scenario.figure]
    unit = f", {metric.unit}" if metric.unit else ""
    better = ("more" if metric.more_is_better else "less") + " is better" + ", logarithmic scale" * metric.wide
    figure.suptitle(f"{scenario.id} {scenario.title}\n{metric.title}{unit}: {better}", fontsize=11)
    figure.supxlabel(note + (f"; {scenario.deviation}" if scenario.deviation else ""), fontsize=6.5, wrap=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_panel(axes: Any, title: str, rows: list[Row], metric: str) -> None:
    values = [row.median(metric) or 0.0 for row in rows]
    spreads = [row.spread(metric) for row in rows]
    errors = [
        [value - low for value, (low, _) in zip(values, spreads, strict=True)],
        [high - value for value, (_, high) in zip(values, spreads, strict=True)],
    ]
    places = range(len(rows))
    axes.barh(places, values, xerr=errors, color=[_colour(row) for row in rows], ecolor="#333333", height=0.72)
    axes.set_yticks(places, [row.title for row in rows])
    axes.invert_yaxis()
    axes.set_title(title, fontsize=8, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    _scale(axes, [end for spread in spreads for end in spread if math.isfinite(end)], METRICS[metric].wide)
    for place, row, value, (_, high) in zip(places, rows, values, spreads, strict=True):
        bound = "*" if row.client_bound and metric == "messages_per_second" else ""
        axes.annotate(short(value) + bound, (high, place), (4, 0), textcoords="offset points", va="center", fontsize=7)


def _scale(axes: Any, ends: list[float], wide: bool) -> None:
    """From 0, or by powers of ten; with room for the figures that stand behind the bars."""
    least, most = min(ends, default=0.0), max(ends, default=1.0) or 1.0
    if wide and least > 0:
        axes.set_xscale("log")
        first = 10 ** math.floor(math.log10(least) - 0.3)
        axes.set_xlim(first, most * (most / first) ** 0.25)
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, most * 1.25)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _position: short(value))


def _colour(row: Row) -> str:
    group = row.group.removeprefix("py-").partition(".")[0]
    known = [name for name in _COLOURS if group == name or group.startswith(f"{name} ")]
    return _COLOURS[known[0]] if known else _OTHER
