"""Who may come in over TLS: by the names in a verified certificate, or by what a function of the program's says.

The engine asks nobody for this: it is looked at before the program's ``on_connect`` hooks, and whoever isn't allowed is
told no more than anybody else who isn't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pysock.base.functions import settled
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import ERROR, Seldom
from pysock.base.logs import server_log as log
from pysock.errors import ParameterError
from pysock.tls.info import TLSInfo, as_compared, matches

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    #: Whether the client at the other end of this may come in.
    Judge: TypeAlias = Callable[[TLSInfo], bool]


def named(sans: Any) -> Judge:
    """Judge by the alternative names: one of these must be in the certificate.

    :raises TypeError: one isn't a text.
    :raises ValueError: there are none, or one can be in no certificate.
    """
    several = (sans,) if isinstance(sans, str) else tuple(sans) if isinstance(sans, Iterable) else (sans,)
    for one in several:
        if not isinstance(one, str):
            raise TypeError(f'allow={{"san": ...}} takes names in certificates, as texts, not {one!r}')
        if not one or not one.isprintable() or "*" in one.removeprefix("*."):
            problem = (
                f'{one!r} can\'t be meant by "san": write the whole name, as "spiffe://example/worker", or'
                ' "*.example" for one more label in front'
            )
            raise ParameterError("allow", problem, name="")
    if not several:
        raise ParameterError("allow", 'names nobody by "san": give a name in a certificate', name="allow=")
    patterns = tuple(map(as_compared, several))
    return lambda info: any(matches(pattern, name) for pattern in patterns for name in info.sans)


def asking(allow: Callable[[Any], Any]) -> Judge:
    """Judge by the program's function, which is called with the :class:`pysock.TLSInfo`."""
    failed = Seldom(log, ERROR, "allow= failed for %r, which was refused")

    def ask(info: TLSInfo) -> bool:
        try:
            return bool(settled(allow(info)))
        except Exception:
            failed.tell(info, traceback=True)
            return False

    return ask
