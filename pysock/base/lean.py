"""What the package needs of :mod:`typing` and :mod:`dataclasses` while it runs, without what these cost to import.

The two take longer to import than everything else in a small program: they bring ``inspect``, ``ast``, ``re`` and some
twenty more. Type checkers see the real ones here. What is needed in annotations only, such as ``Any`` and ``Final``,
each module takes from :mod:`typing` itself, under ``TYPE_CHECKING``.
"""

# ruff: noqa: ANN001, ANN201, ANN204  # what type checkers see has types, in typeshed

from __future__ import annotations

from collections import namedtuple

__all__ = [
    "TYPE_CHECKING",
    "Generic",
    "NamedTuple",
    "Protocol",
    "TypeVar",
    "cast",
    "dataclass",
    "field",
    "field_names",
    "overload",
    "replace",
]

#: Type checkers take this to be true, wherever it is imported.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass, field
    from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, cast, overload

    Record = TypeVar("Record")
else:
    Protocol = object

    class Generic:
        """A base that takes its parameters and forgets them."""

        def __class_getitem__(cls, parameters):
            return cls

    def TypeVar(name, *, bound=None):  # noqa: N802
        """Only a name: annotations aren't evaluated."""
        return name

    def cast(_kind, value):
        """The value."""
        return value

    def overload(function):
        """The function, which the next of its name replaces."""
        return function

    class _NamedTupleMaker(type):
        """What makes ``class X(NamedTuple)`` a :func:`collections.namedtuple` with the class's methods."""

        def __new__(cls, name, _bases, body):
            hints = body.get("__annotations__", {})
            defaults = [body[key] for key in hints if key in body]
            made = namedtuple(name, hints, defaults=defaults, module=body["__module__"])
            made.__annotations__ = hints
            for key, value in body.items():
                if key not in hints and key not in _BODY_ONLY:
                    setattr(made, key, value)
            return made

    _BODY_ONLY = frozenset(("__annotations__", "__module__", "__qualname__"))
    NamedTuple = type.__new__(_NamedTupleMaker, "NamedTuple", (), {})

    def field(*, default_factory):
        """As :func:`dataclasses.field`, of which nothing else is used."""
        return _Factory(default_factory)

    def dataclass(*, frozen, slots, kw_only=False):
        """As :func:`dataclasses.dataclass`, for classes that are frozen and have slots."""
        assert frozen
        assert slots
        return lambda cls: _make_record(cls, kw_only)


class _Factory:
    """The default of a field that is made anew for each object."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def _make_record(cls: type, kw_only: bool) -> type:
    """``cls`` again, with what :func:`dataclasses.dataclass` would have added."""
    hints = vars(cls)["__annotations__"]
    body = {key: value for key, value in vars(cls).items() if key not in {*hints, "__dict__", "__weakref__"}}
    defaults = {key: vars(cls)[key] for key in hints if key in vars(cls)}
    twin = _Twin(hints, defaults, kw_only)
    return type(cls)(
        cls.__name__,
        cls.__bases__,
        {
            **_METHODS,
            **body,  # a method that the class has itself stays, as with dataclasses
            "__qualname__": cls.__qualname__,
            "__slots__": tuple(hints),
            "__init__": _init(cls, hints, defaults, kw_only),
            "__match_args__": () if kw_only else tuple(hints),
            "_record_fields": tuple(hints),
            "__dataclass_fields__": _Borrowed(twin, "__dataclass_fields__"),
            "__dataclass_params__": _Borrowed(twin, "__dataclass_params__"),
        },
    )


def _init(cls: type, hints: dict[str, Any], defaults: dict[str, Any], kw_only: bool) -> Callable[..., None]:
    """Its source is put together, so that the signature is a real one: for help(), and for errors of calls."""
    scope = {f"_{key}": value for key, value in defaults.items()} | {"_set": object.__setattr__}
    parameters = ["self", *(["*"] if kw_only else [])]
    lines = []
    for key in hints:
        parameters.append(f"{key}=_{key}" if key in defaults else key)
        value = f"_{key}.make() if {key} is _{key} else {key}" if isinstance(defaults.get(key), _Factory) else key
        lines.append(f"    _set(self, {key!r}, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(lines), scope)  # noqa: S102  # our own words only
    made: Callable[..., None] = scope["__init__"]
    made.__annotations__ = {**hints, "return": None}
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    return made


class _Twin:
    """A real dataclass of the same fields, made when somebody asks: who does has imported :mod:`dataclasses`."""

    def __init__(self, hints: dict[str, Any], defaults: dict[str, Any], kw_only: bool) -> None:
        self._hints = hints
        self._defaults = defaults
        self._kw_only = kw_only
        self._made: type | None = None

    def get(self) -> type:
        """The class."""
        if self._made is None:
            import dataclasses  # noqa: PLC0415  # see above

            def spec(key: str) -> Any:
                default = self._defaults.get(key, dataclasses.MISSING)
                if isinstance(default, _Factory):
                    return dataclasses.field(default_factory=default.make)
                return dataclasses.field(default=default)

            fields = [(key, hint, spec(key)) for key, hint in self._hints.items()]
            self._made = dataclasses.make_dataclass("Twin", fields, frozen=True, kw_only=self._kw_only)
        return self._made


class _Borrowed:
    """An attribute that the twin has: by it ``dataclasses.replace()``, ``fields()`` and ``asdict()`` know the class."""

    def __init__(self, twin: _Twin, name: str) -> None:
        self._twin = twin
        self._name = name

    def __get__(self, _instance: object, _owner: type | None = None) -> Any:
        return getattr(self._twin.get(), self._name)


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, key) for key in self._record_fields)


def _repr(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{key}={getattr(self, key)!r}' for key in self._record_fields)})"


def _eq(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse(self: Any, key: str, *_value: object) -> None:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415  # it comes of a mistake

    raise FrozenInstanceError(f"a {type(self).__name__} can't be changed: make another one, to set its {key!r}")


def _get_state(self: Any) -> list[Any]:
    return list(_values(self))


def _set_state(self: Any, state: list[Any]) -> None:
    for key, value in zip(self._record_fields, state, strict=True):
        object.__setattr__(self, key, value)


def _replace(self: Any, /, **changes: Any) -> Any:
    return type(self)(**{key: getattr(self, key) for key in self._record_fields} | changes)


_METHODS: Final[dict[str, Any]] = {
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
    "__getstate__": _get_state,
    "__setstate__": _set_state,
    "__replace__": _replace,
}


def field_names(record: Any) -> tuple[str, ...]:
    """The names of the fields of such a class, or of an object of it, in order."""
    names: tuple[str, ...] = record._record_fields
    return names


def replace(record: Record, **changes: Any) -> Record:
    """As :func:`dataclasses.replace`."""
    made: Record = _replace(record, **changes)
    return made
