"""What an asyncio client sends, gathered in C."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.native.crossing import lib, result_of

if TYPE_CHECKING:
    from pysock.engine.outlet import Outlet


def _made() -> type[Outlet]:
    made: list[type[Outlet]] = []
    result_of(lib.ps_pyoutlet_type(id(made)))
    return made[0]


#: See :class:`pysock.engine.outlet.Outlet`.
NativeOutlet: type[Outlet] = _made()
