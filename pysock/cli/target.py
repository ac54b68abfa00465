"""What ``pysock serve MODULE:NAME`` serves: the module is imported, and everything that goes wrong is put in words.

The code is the user's own, so whatever it raises may come out of it, and where it was raised is part of the words.
"""

from __future__ import annotations

import importlib
import logging
import operator
import os
import sys
import traceback
from typing import Any, Final

import click

from pysock import running, server
from pysock.base import imported

#: Between the import and the user's code, or below it.
_NOT_THE_USERS: Final = {__file__, importlib.__file__, imported.__file__, server.__file__, running.__file__}

log: Final = logging.getLogger(__name__)


def load(target: str) -> Any:
    """Return the object ``MODULE:NAME``; NAME may have dots."""
    module, _, name = target.partition(":")
    if "/" in module:
        raise click.UsageError(f"{module!r} is the path of a file: write the module's name, as pysock.examples.upper")
    if not (all(module.split(".")) and name):
        raise click.UsageError(f"{target!r} is not of the form MODULE:NAME, as pysock.examples.upper:upper")
    found = _imported(module, name)
    try:
        return operator.attrgetter(name)(found)
    except AttributeError:
        raise click.UsageError(f"module {module!r} has no {name!r}") from None
    except Exception as error:  # of a property, say
        raise click.ClickException(f"{name!r} of module {module!r} can't be had: {_told(error)}") from error


def _imported(module: str, name: str) -> Any:
    sys.path.insert(0, os.getcwd())
    try:
        with imported.importing():
            return importlib.import_module(module)
    except imported.ServesWhileImported as error:
        raise click.ClickException(f"module {module!r}{_place(error)}: {error}") from error
    except (Exception, SystemExit) as error:  # a module that ends the program at import would do so without a word
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            stem = module.removesuffix(".py")
            advice = f": write {stem}:{name}, without .py" if stem != module else ""
            raise click.UsageError(f"there is no module {error.name!r}{advice}") from None
        log.debug("module %r can't be imported", module, exc_info=True)
        raise click.ClickException(f"module {module!r} can't be imported: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}{_place(error)}"


def _place(error: BaseException) -> str:
    """File and line, in brackets: the innermost of the current directory, otherwise where the user's code begins."""
    if isinstance(error, SyntaxError):
        return ""  # it says that itself
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ") and frame.filename not in _NOT_THE_USERS
    ]
    here = os.path.join(os.getcwd(), "")
    ours = [frame for frame in frames if frame.filename.startswith(here)]
    place = ours[-1] if ours else frames[0] if frames else None
    return "" if place is None else f" ({place.filename.removeprefix(here)}, line {place.lineno})"
