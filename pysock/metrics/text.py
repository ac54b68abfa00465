"""The two formats in which Prometheus reads metrics, as text, without I/O: its own, and OpenMetrics.

https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4),
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md (1.0.0)
"""

from __future__ import annotations

from collections.abc import Iterable

from pysock.base.lean import TYPE_CHECKING
from pysock.metrics.families import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

PLAIN_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: What stands for a character in a label's value; in a help text of the plain format quotes stay.
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_ESCAPES_OF_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_UNITS: Final = ("seconds", "bytes")


def wants_open(accept: str) -> bool:
    """Whether this ``Accept`` asks for OpenMetrics at least as much as for the plain format; RFC 9110, 12.5.1."""
    likes = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind in likes:
            likes[kind] = max(likes[kind], _quality(parameters))
    is_open = likes["application/openmetrics-text"]
    return is_open > 0 and is_open >= likes["text/plain"]


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def plain(families: Iterable[Family]) -> str:
    """In Prometheus's own format."""
    return "".join(line for family in families for line in _plain(family))


def _plain(family: Family) -> Iterator[str]:
    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    kind = "gauge" if family.kind == "info" else family.kind
    yield f"# HELP {family.name}{suffix} {family.help.translate(_ESCAPES_OF_HELP)}\n"
    yield f"# TYPE {family.name}{suffix} {kind}\n"
    yield from _samples(family)


def openmetrics(families: Iterable[Family]) -> str:
    """In OpenMetrics."""
    return "".join(line for family in families for line in _open(family)) + "# EOF\n"


def _open(family: Family) -> Iterator[str]:
    yield f"# TYPE {family.name} {family.kind}\n"
    unit = family.name.rpartition("_")[2]
    if unit in _UNITS:
        yield f"# UNIT {family.name} {unit}\n"
    yield f"# HELP {family.name} {family.help.translate(_ESCAPES)}\n"
    yield from _samples(family)


def _samples(family: Family) -> Iterator[str]:
    for suffix, labels, value in family.samples:
        yield f"{family.name}{suffix}{_labels(labels)} {_number(value)}\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{_escaped(value)}"' for name, value in labels.items()]) + "}"


def _escaped(value: str) -> str:
    """Mostly there is nothing to do, and there are many of them."""
    if '"' in value or "\\" in value or "\n" in value:
        return value.translate(_ESCAPES)
    return value


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(value)
