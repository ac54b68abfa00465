"""The package's own NamedTuple and dataclass do what those of typing and dataclasses do: pysock/base/lean.py."""

import collections
import copy
import dataclasses
import inspect
import pickle
import typing

import pytest

import pysock
from pysock.base.lean import NamedTuple, dataclass, field, field_names, replace
from pysock.engine.rows import ClientInfo


class Ours(NamedTuple):
    """A row."""

    name: str
    size: int = 3

    @property
    def twice(self) -> int:
        return 2 * self.size


class Theirs(typing.NamedTuple):
    """A row."""

    name: str
    size: int = 3

    @property
    def twice(self) -> int:
        return 2 * self.size


@dataclass(frozen=True, slots=True)
class Mine:
    """A record."""

    name: str
    size: int = 3
    kinds: list = field(default_factory=list)

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("too small")

    @classmethod
    def big(cls):
        return cls("big", 100)


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    """A record."""

    name: str
    size: int = 3
    kinds: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("too small")

    @classmethod
    def big(cls):
        return cls("big", 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName:
    first: int = 1
    second: str


def told(call):
    """What comes of it: the result or the exception, as a text in which both kinds are called the same."""
    try:
        text = repr(call())
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    for name in ("Ours", "Theirs", "Mine", "Real"):
        text = text.replace(name, "X")
    return text


@pytest.mark.parametrize(
    "look",
    [
        lambda cls: cls("a"),
        lambda cls: cls("a", 5),
        lambda cls: cls(size=1, name="b"),
        lambda cls: cls(),
        lambda cls: cls("a", 1, 2, 3),
        lambda cls: cls("a", colour=1),
        lambda cls: cls("a").twice,
        lambda cls: cls("a")._replace(size=9),
        lambda cls: cls("a")._asdict(),
        lambda cls: (cls._fields, cls._field_defaults, cls.__doc__, cls.__name__, cls.__qualname__, cls.__module__),
        lambda cls: cls._make(["x", 1]),
        lambda cls: str(inspect.signature(cls)).replace(": str", "").replace(": int = ", "="),
        lambda cls: (cls("a") == cls("a", 3), cls("a") == ("a", 3), isinstance(cls("a"), tuple), hash(cls("a"))),
        lambda cls: pickle.loads(pickle.dumps(cls("a"))),
        lambda cls: copy.deepcopy(cls("a")),
        lambda cls: setattr(cls("a"), "size", 1),
        typing.get_type_hints,
    ],
)
def test_a_named_tuple_is_as_typing_makes_it(look):
    assert told(lambda: look(Ours)) == told(lambda: look(Theirs))


@pytest.mark.parametrize(
    "look",
    [
        lambda cls: cls("a"),
        lambda cls: cls("a", 5, [1]),
        lambda cls: cls(size=1, name="b"),
        lambda cls: cls(),
        lambda cls: cls("a", 1, 2, 3),
        lambda cls: cls("a", colour=1),
        lambda cls: cls("a", -1),
        lambda cls: cls.big(),
        lambda cls: cls("a") == cls("a", 3),
        lambda cls: cls("a") == cls("b"),
        lambda cls: cls("a") == ("a", 3, []),
        lambda cls: cls("a", kinds=()).__hash__() == hash(("a", 3, ())),
        lambda cls: hash(cls("a")),
        lambda cls: cls("a").kinds is cls("a").kinds,
        lambda cls: pickle.loads(pickle.dumps(cls("a", 7))),
        lambda cls: copy.copy(cls("a", 7)),
        lambda cls: copy.deepcopy(cls("a", 7)),
        lambda cls: dataclasses.replace(cls("a"), size=8),
        lambda cls: dataclasses.replace(cls("a"), size=-8),
        lambda cls: dataclasses.replace(cls("a"), colour=8),
        lambda cls: dataclasses.asdict(cls("a")),
        lambda cls: dataclasses.astuple(cls("a")),
        lambda cls: [(one.name, one.type in (str, int, list), one.init) for one in dataclasses.fields(cls)],
        dataclasses.is_dataclass,
        lambda cls: inspect.signature(cls).parameters.keys(),
        lambda cls: (cls.__match_args__, cls.__doc__, cls.__name__, cls.__qualname__, cls.__module__, cls.__slots__),
        lambda cls: cls.__init__.__qualname__,
        lambda cls: hasattr(cls("a"), "__dict__"),
        lambda cls: dataclasses.dataclass(frozen=True)(type("X", (cls,), {"__annotations__": {"more": "int"}}))("a", 1),
    ],
)
def test_a_record_is_as_dataclasses_makes_it(look):
    assert told(lambda: look(Mine)) == told(lambda: look(Real))


@pytest.mark.parametrize("change", [lambda it: setattr(it, "name", "b"), lambda it: delattr(it, "name")])
def test_a_record_cannot_be_changed(change):
    record = Mine("a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="can't be changed"):
        change(record)
    with pytest.raises(AttributeError):
        record.colour = "red"
    assert record == Mine("a")


def test_a_record_by_name():
    assert repr(ByName(second="x")) == "ByName(first=1, second='x')"
    assert replace(ByName(second="x"), first=2) == ByName(first=2, second="x")
    assert field_names(ByName) == field_names(ByName(second="")) == ("first", "second")
    with pytest.raises(TypeError, match="positional"):
        ByName(1, "x")
    assert [one.kw_only for one in dataclasses.fields(ByName)] == [True, True]


def test_a_record_is_matched_by_position():
    match Mine("a", 2):
        case Mine(name, size):
            assert (name, size) == ("a", 2)


@pytest.mark.parametrize("record", [pysock.Limits(max_clients=7), pysock.Address.parse("unix:/a?mode=0660")])
def test_the_public_records(record):
    for twin in (
        pickle.loads(pickle.dumps(record)),
        copy.copy(record),
        copy.deepcopy(record),
        dataclasses.replace(record),
        type(record)(**dataclasses.asdict(record)),
    ):
        assert twin == record
        assert hash(twin) == hash(record)
        assert repr(twin) == repr(record)
        assert type(twin) is type(record)


def test_a_row_of_the_table_is_a_named_tuple():
    assert issubclass(ClientInfo, tuple)
    assert ClientInfo._fields[:2] == ("client_id", "fd")
    assert isinstance(ClientInfo.__dict__["fd"], type(collections.namedtuple("X", "a").a))
