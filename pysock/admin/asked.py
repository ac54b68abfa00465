"""What an admin service is asked: a JSON object, of which every field is looked at before anything is done.

This file owns the checks, and their words: a field that nobody knows is an error, for it was meant to change something.
"""

from __future__ import annotations

from collections.abc import Mapping

from pysock.base.ids import read
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Any


class Asked:
    """The fields of one request."""

    def __init__(self, service: str, fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
        """``known``: the fields that there are.

        :raises ValueError: there is another one.
        """
        self._service = service
        self._fields = fields
        for name in fields:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise self._wrong(name, f"isn't a field of {service!r}: {takes}")

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text, or ``default``."""
        value = self._fields.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(name, f"must be a text, not {value!r}")
        return value

    def number(self, name: str, least: float, most: float, default: float | None = None) -> float | None:
        """A number of this range, or ``default``."""
        value = self._fields.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise self._wrong(name, f"must be a number from {least:g} to {most:g}, not {value!r}")
        return value

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int | None:
        """A whole number of this range, or ``default``."""
        value = self.number(name, least, most, default)
        if value is None or isinstance(value, int):
            return value
        raise self._wrong(name, f"must be a whole number, not {value!r}")

    def flag(self, name: str) -> bool:
        """Whether it is said."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, f"must be true or false, not {value!r}")
        return value

    def client(self, name: str) -> int | None:
        """The id of a client, which is a text: ``"1.7"``."""
        text = self.text(name)
        if text is None:
            return None
        found = read(text)
        if found is None:
            raise self._wrong(name, f"must be the id of a client, for example '1.7', not {text!r}")
        return found

    @staticmethod
    def _wrong(name: str, problem: str) -> ParameterError:
        return ParameterError(name, problem, name=repr(name))
