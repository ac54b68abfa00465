"""Metrics: their names, whether more is better, and how to write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Metric:
    """One of those in :attr:`Row.runs`."""

    title: str
    unit: str
    more_is_better: bool = False
    wide: bool = False  # it differs a hundredfold between servers: drawn on a logarithmic scale


METRICS: Final = {
    "messages_per_second": Metric("messages/s", "", more_is_better=True),
    "p50_us": Metric("p50", "us"),
    "p99_us": Metric("p99", "us", wide=True),
    "p999_us": Metric("p99.9", "us", wide=True),
    "cpu_us": Metric("server CPU per message", "us"),
    "client_core": Metric("generator's share of its core", ""),
    "resident_bytes": Metric("resident memory", "B"),
    "idle_bytes": Metric("resident memory per idle client", "B"),
    "kept": Metric("throughput kept beside the herd", "", more_is_better=True),
    "hog_core": Metric("processor left for the busy thread", "", more_is_better=True),
}


def short(value: float) -> str:
    """Three digits that count: ``4.21``, ``37.5``, ``452 k``, ``12.3 M``."""
    for factor, suffix in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= factor * (10 if factor == 1e3 else 1):
            return _digits(value / factor) + suffix
    return _digits(value)


def _digits(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    if abs(value) >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.0995 or value == 0 else f"{value:.3f}"
