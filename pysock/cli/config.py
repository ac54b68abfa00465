"""``pysock serve --config FILE.toml``: the options of the command from a file.

This file owns what a file may say. There is no table of keys: they are the parameters that the command has, by the
names that it gives them, and each judges its own value, as on the command line.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any, Final, TypeVar

import click

if sys.version_info >= (3, 11):
    import tomllib

    #: What reads TOML, if there is something.
    toml: Any = tomllib
else:
    try:
        import tomli as toml
    except ImportError:
        toml = None

C = TypeVar("C", bound=click.Command)

#: What a value has to be, by the type of the parameter: in Python, and in words. Others are strings.
_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "boolean": ((bool,), "true or false"),
    "integer": ((int,), "a whole number"),
    "integer range": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float range": ((int, float), "a number"),
    "number or word": ((int, str), "a whole number or a string"),
}
_STRING: Final = ((str,), "a string")


def takes_a_file(command: C) -> C:
    """Add ``--config`` to a command, for all parameters that it has."""
    command.params.append(
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            is_eager=True,  # what the file says stands in for what isn't given, so it has to be known first
            expose_value=False,
            show_envvar=True,
            callback=_read,
            help="Take from this file, TOML, what the command line and variables leave out: bind, log-level and so on.",
        )
    )
    return command


def _read(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Let the file's values be what the command's parameters are by default."""
    if path is not None:
        ctx.default_map = {**(ctx.default_map or {}), **values_of(path, ctx)}


def values_of(path: Path, ctx: click.Context) -> dict[str, Any]:
    """Return what the file says, by the names of the parameters.

    :raises click.UsageError: the file can't be read, or says something that the command wouldn't take.
    """
    parameters = {_key(param): param for param in ctx.command.params if param.expose_value}
    found: dict[str, Any] = {}
    for key, value in _parsed(path).items():
        if key not in parameters:
            raise click.UsageError(f"{path}: unknown key {key!r}{_near(key, [*parameters])}", ctx)
        param = parameters[key]
        try:
            given = _as_given(param, value)
            param.process_value(ctx, given)
        except click.BadParameter as error:
            raise click.UsageError(f"{path}: {key}: {error.message}", ctx) from None
        if given is not None:
            found[str(param.name)] = given
    return found


def _parsed(path: Path) -> dict[str, Any]:
    if toml is None:
        raise click.UsageError("--config needs tomli before Python 3.11: pip install 'pysock-engine[cli]' brings it")
    try:
        result: dict[str, Any] = toml.loads(path.read_text("utf-8"))
    except OSError as error:
        raise click.UsageError(f"--config: {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{path} isn't TOML in UTF-8: {error}") from None
    return result


def _key(param: click.Parameter) -> str:
    """An option's, without the dashes; or that of the argument."""
    return param.opts[0].removeprefix("--")


def _near(key: str, keys: list[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), keys)
    meant = f": did you mean {' or '.join(map(repr, near))}? " if near else "; "
    return f"{meant}Keys are the options of the command, without the dashes, and 'target' for MODULE:NAME"


def _as_given(param: click.Parameter, value: Any) -> Any:
    """Return the value as the command line would have it; ``None`` where that would leave the option out.

    :raises click.BadParameter: it is of another type.
    """
    if param.multiple:
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in several):
            raise click.BadParameter(f"a string or a list of strings is wanted here, not {_shown(value)}")
        return several
    alone = None if getattr(param, "is_flag", False) else getattr(param, "flag_value", None)
    if isinstance(alone, str) and isinstance(value, bool):  # an option that can stand without a value
        return alone if value else None
    types, words = _KINDS.get(param.type.name, _STRING)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise click.BadParameter(f"{words} is wanted here, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """As TOML has it, more or less."""
    if isinstance(value, bool):
        return str(value).lower()
    return "a table" if isinstance(value, dict) else repr(value)
