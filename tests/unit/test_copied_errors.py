"""Every exception survives what takes it to another process or thread: pickle, copy and deepcopy."""

from __future__ import annotations

import copy
import errno
import importlib
import multiprocessing
import pickle
import pkgutil
from dataclasses import dataclass

import pytest

import pysock
from pysock.errors import ConnectionLost, ParameterError, advised
from pysock.states import IllegalTransition


def exceptions_of_the_package():
    """All that are defined in it, whoever may raise them."""
    found = set()
    for module in pkgutil.walk_packages(pysock.__path__, "pysock."):
        if module.name in {"pysock._engine", "pysock.__main__"}:  # the one is C, the other runs the program
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseException) and value.__module__.startswith("pysock"):
                found.add(value)
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


EXCEPTIONS = exceptions_of_the_package()

#: By their names, so that a new way to copy is tried on all.
WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def is_the_same(again, error):
    assert type(again) is type(error)
    assert again is not error
    assert (again.args, str(again), repr(again)) == (error.args, str(error), repr(error))
    assert vars(again) == vars(error)
    for name in ("errno", "strerror", "filename", "filename2"):
        assert getattr(again, name, None) == getattr(error, name, None)
    assert again.__cause__ is None
    assert again.__context__ is None
    return True


def test_there_are_those_that_everybody_knows():
    assert {pysock.PysockError, pysock.AddressInUse, ConnectionLost, IllegalTransition} <= set(EXCEPTIONS)
    assert all(issubclass(kind, pysock.PysockError) for kind in (ConnectionLost, IllegalTransition))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_each_is_the_same_after_a_copy(kind, way):
    error = kind("in words")
    error.more = ["of a user's"]
    assert is_the_same(WAYS[way](error), error)


class NotFound(pysock.RemoteError):
    """What a user derives: its ``__init__`` takes other things than the one that it calls."""

    def __init__(self, what, *, hint):
        super().__init__(f"there is no {what}", 404)
        self.what = what
        self.hint = hint


class Busy(pysock.AddressInUse):
    def __init__(self, port, owner):
        super().__init__(f"{owner} has port {port}")
        self.port = port


class Late(pysock.RequestTimeout):
    """Its base is an OSError, which looks at what it is made with."""

    def __init__(self, seconds):
        super().__init__(errno.ETIMEDOUT, f"after {seconds} s", "some file")
        self.seconds = seconds


class Silent(pysock.RemoteError):
    """It never calls its base's ``__init__``, which is what RuntimeError allows."""

    def __init__(self, a, b):
        self.sum = a + b


class Wrong(pysock.ConnectionRefused, KeyError):
    def __init__(self, key):
        super().__init__(f"wrong key {key}")


class OutOfOrder(IllegalTransition):
    def __init__(self, step, number):
        super().__init__(f"{step} comes after {number}")
        self.number = number


@dataclass
class Described(pysock.PysockError):
    what: str
    number: int


@dataclass(frozen=True)
class Frozen(pysock.PysockError):
    what: str


OF_USERS = [
    NotFound("page", hint={"look": ["elsewhere"]}),
    Busy(80, owner="httpd"),
    Late(1.5),
    Silent(1, 2),
    Wrong(b"key"),
    OutOfOrder("bind()", 2),
    Described("this", 3),
    Frozen("that"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", OF_USERS, ids=lambda error: type(error).__name__)
def test_what_users_derive_is_the_same_after_a_copy(error, way):
    assert is_the_same(WAYS[way](error), error)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "error",
    [
        pysock.RemoteError("no", 404),
        pysock.ConnectionRefused("full", 7),
        pysock.ServerFull(),
        pysock.RequestTimeout(errno.ETIMEDOUT, "late", "a", None, "b"),
        pysock.RequestTimeout(),
        ParameterError("linger", "must be less", name="Limits.linger", advice="take another"),
        advised(pysock.ConnectionRefused("a: b", 7), "a", "b"),
        advised(PermissionError(errno.EPERM, "a (b)"), "a", "(b)"),
    ],
    ids=repr,
)
def test_their_own_attributes_come_along(error, way):
    again = WAYS[way](error)
    assert is_the_same(again, error)
    assert getattr(again, "code", None) == getattr(error, "code", None)


def test_where_it_came_from_stays_behind():
    try:
        try:
            raise OSError("first")
        except OSError as first:
            raise pysock.AddressInUse("second") from first
    except pysock.AddressInUse as second:
        again = pickle.loads(pickle.dumps(second))
    assert (again.__cause__, again.__context__, again.__traceback__) == (None, None, None)


def raise_it(number):
    raise OF_USERS[number] if number >= 0 else pysock.AddressInUse("taken")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads of other tests
def test_they_come_out_of_a_worker_process():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        results = [pool.apply_async(raise_it, [number]) for number in (-1, 0, 1)]
        for result, kind in zip(results, (pysock.AddressInUse, NotFound, Busy), strict=True):
            with pytest.raises(kind):
                result.get(timeout=10)
