"""What was measured, as rows; to a JSON file and back."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

FORMAT: Final = 1

#: Above this the generator, not the server, may set the pace.
CLIENT_BOUND: Final = 0.85


@dataclass(slots=True, kw_only=True)
class Row:
    """One peer under one load.

    :ivar own_client: under load from a client in Python: to be compared with such rows only.
    :ivar missing: why it wasn't measured.
    :ivar failed: what went wrong, in one run at least.
    :ivar runs: of each metric the values of all rounds.
    """

    scenario: str
    load: str
    peer: str
    title: str
    group: str
    own_client: bool
    missing: str = ""
    failed: str = ""
    runs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, run: dict[str, float]) -> None:
        """One more round."""
        for metric, value in run.items():
            self.runs.setdefault(metric, []).append(float(f"{value:.5g}"))

    def median(self, metric: str) -> float | None:
        """Over the rounds; ``None`` if there is none."""
        return statistics.median(self.runs[metric]) if self.runs.get(metric) else None

    def spread(self, metric: str) -> tuple[float, float]:
        """Least and most."""
        return min(self.runs[metric]), max(self.runs[metric])

    @property
    def client_bound(self) -> bool:
        """Whether the generator may have set the pace."""
        return not self.own_client and (self.median("client_core") or 0.0) > CLIENT_BOUND


@dataclass(slots=True, kw_only=True)
class Results:
    """All rows of one call, and what they depend on."""

    started: str
    environment: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it, one line for each row."""
        head = {"format": FORMAT, "started": self.started, "environment": self.environment, "settings": self.settings}
        lines = [json.dumps({name: value for name, value in asdict(row).items() if value}) for row in self.rows]
        text = json.dumps(head, indent=1).removesuffix("\n}") + ',\n "rows": [\n' + ",\n".join(lines) + "\n]}\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read it.

        :raises ValueError: it isn't one of ours.
        """
        try:
            found = json.loads(path.read_text())
            if found["format"] != FORMAT:
                raise ValueError(f"its format is {found['format']}, not {FORMAT}")
            rows = [Row(**{"own_client": False, **row}) for row in found["rows"]]
            return cls(
                started=found["started"], environment=found["environment"], settings=found["settings"], rows=rows
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a result of python -m bench: {error!r}") from None

    def of(self, scenario: str, load: str, own_client: bool) -> list[Row]:
        """The rows that may be compared."""
        return [row for row in self.rows if (row.scenario, row.load, row.own_client) == (scenario, load, own_client)]

    def loads(self, scenario: str) -> list[tuple[str, bool]]:
        """Title of each load, and whether its clients are in Python, as measured."""
        return list(dict.fromkeys((row.load, row.own_client) for row in self.rows if row.scenario == scenario))


def base_of(rows: list[Row]) -> Row | None:
    """What ratios refer to: the floor, or else the first that was measured."""
    return next((row for row in rows if row.runs), None)


def ratio(row: Row, base: Row | None, metric: str) -> float | None:
    """Multiple of the base's figure; ``None`` where there is none."""
    own, other = row.median(metric), base.median(metric) if base else None
    return own / other if own is not None and other else None
