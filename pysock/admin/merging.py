"""One answer of several workers: who has an admin socket for all of them asks each, and puts together what they say.

This file owns how: a request is spread among the workers (:func:`spread`), and their answers are merged
(:func:`merged`), by a rule for each field. Ids of clients have the worker's number in front then, ``"2.1.7"``. A worker
that gave no answer is named in ``hung``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    #: What one field is in all answers, by the workers that gave it -> what it is in the one.
    Rule: TypeAlias = Callable[[Mapping[int, Any]], Any]

#: The field that says where a page begins: of several workers it is an object, by their numbers.
_CURSOR: Final = {"clients": "after", "slowlog": "after", "tail": "after"}


def spread(service: str, fields: Mapping[str, Any], workers: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What each worker is to be asked, by its number; who isn't to be asked isn't there.

    :raises ValueError: a client's id is none of theirs.
    """
    numbers = list(workers)
    cursor = _CURSOR.get(service, "")
    if isinstance(after := fields.get(cursor), Mapping):
        begins = {number: after[str(number)] for number in numbers if after.get(str(number)) is not None}
        if service == "tail":  # there are new ones
            others = {name: value for name, value in fields.items() if name != cursor}
            return {n: {**fields, cursor: begins[n]} if n in begins else dict(others) for n in numbers}
        return {number: {**fields, cursor: begin} for number, begin in begins.items()}
    if isinstance(wanted := fields.get("id"), str):
        worker, _, inner = wanted.partition(".")
        if "." not in inner or not worker.isdecimal():
            problem = f"must be the id of a client, of which there are several workers here, as '0.1.7', not {wanted!r}"
            raise ParameterError("id", problem, name="'id'")
        return {int(worker): {**fields, "id": inner}} if int(worker) in numbers else {}
    return {number: dict(fields) for number in numbers}


def merged(service: str, answers: Mapping[int, Mapping[str, Any] | None]) -> dict[str, Any]:
    """One answer.

    :param answers: of each worker that was asked, by its number; ``None``: it gave none in time.
    """
    given = {number: answer for number, answer in sorted(answers.items()) if answer is not None}
    rules = _RULES.get(service, {})
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for answer in given.values() for name in answer):
        values = {number: answer[name] for number, answer in given.items() if name in answer}
        found[name] = rules.get(name, _first)(values)
    if service in _ONE_BY_ONE:
        found["workers"] = {str(number): dict(answer) for number, answer in given.items()}
    for name, nobody in _NOBODY.get(service, {}).items():
        found.setdefault(name, nobody)
    return found | {"hung": sorted(answers.keys() - given.keys())}


# The rules


def _first(values: Mapping[int, Any]) -> Any:
    return next(iter(values.values()))


def _sum(values: Mapping[int, Any]) -> Any:
    return sum(values.values())


def _most(values: Mapping[int, Any]) -> Any:
    return max(values.values())


def _any(values: Mapping[int, Any]) -> bool:
    return any(values.values())


def _sums(values: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for each in values.values() for name in each)
    return {name: sum(each.get(name, 0) for each in values.values()) for name in names}


def _services(values: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What each service has counted, in all of them."""
    names = dict.fromkeys(name for each in values.values() for name in each)
    found = {name: {number: each[name] for number, each in values.items() if name in each} for name in names}
    return {
        name: {
            "requests": _sums({number: each["requests"] for number, each in those.items()}),
            "sum": sum(each["sum"] for each in those.values()),
            "buckets": _sums({number: each["buckets"] for number, each in those.items()}),
        }
        for name, those in found.items()
    }


def _one_of(values: Mapping[int, Any]) -> Any:
    """What all say, or each of what they say."""
    return ", ".join(dict.fromkeys(map(str, values.values())))


def _ids(values: Mapping[int, Iterable[str]]) -> list[str]:
    return [f"{number}.{one}" for number, each in values.items() for one in each]


def _by(*times: str) -> Rule:
    """Rows of all, in the order of this field; each says of which worker it is."""

    def rows(values: Mapping[int, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        found = [_of_worker(number, row) for number, each in values.items() for row in each]
        return sorted(found, key=itemgetter(*times)) if times else found

    return rows


def _of_worker(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    ids = {name: f"{number}.{row[name]}" for name in ("id", "client") if row.get(name) is not None}
    return {**row, **ids, "worker": number}


def _findings(values: Mapping[int, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What is so of several workers is said once."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, each in values.items():
        for row in each:
            found.setdefault((row["check"], row["text"]), []).append({**row, "worker": number})
    alone = len(values) == 1
    merged = [rows[0] for rows in found.values()]
    for row, rows in zip(merged, found.values(), strict=True):
        if len(rows) > 1 or alone:
            del row["worker"]
    return merged


def _cursor(values: Mapping[int, Any]) -> dict[str, Any] | None:
    """Where each goes on; ``None``: none does."""
    return (
        {str(number): value for number, value in values.items()}
        if any(value is not None for value in values.values())
        else None
    )


_RULES: Final[dict[str, dict[str, Rule]]] = {
    "clients": {
        "at": _most,
        "total": _sum,
        "clients": _by("connected_at"),
        "next": _cursor,
        "gone": _by("left_at"),
    },
    "kill": {"killed": _sum, "ids": _ids},
    "stats": {
        "at": _most,
        "since": lambda values: min(values.values()),
        "state": _one_of,
        "lame": _any,
        "max_clients": _sum,
        "stuck_for": _most,
        "counters": _sums,
        "services": _services,
        "loop": _sums,
    },
    "doctor": {"findings": _findings},
    "slowlog": {"at": _most, "total": _sum, "slowlog": _by("at"), "next": _cursor},
    "tail": {"at": _most, "tail": _by("at"), "skipped": _sum, "next": _cursor},
    "drain": {"state": _one_of},
    "resume": {"state": _one_of},
}
#: Those of which each worker's own answer is told as well.
_ONE_BY_ONE: Final = frozenset(("stats",))
#: What is said where nobody was asked, or nobody answered.
_NOBODY: Final[dict[str, dict[str, Any]]] = {
    "clients": {"total": 0, "clients": [], "next": None, "gone": []},
    "kill": {"killed": 0, "ids": []},
    "doctor": {"findings": [], "checked": {}},
    "slowlog": {"total": 0, "slowlog": [], "next": None},
    "tail": {"tail": [], "skipped": 0, "next": None},
}
