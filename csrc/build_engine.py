"""The recipe of the extension ``pysock._engine``: declarations, sources and flags.

``setup.py`` runs it through cffi. The declarations are ``csrc/pysock_abi*.h``, read as they stand.
``PYSOCK_WERROR=1`` turns warnings into errors: for our own builds, never for a user's compiler.
"""

import hashlib
import os
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = ["unit.c", *sorted(f"load/{path.name}" for path in HERE.glob("load/*.c"))]
INCLUDED = sorted({str(path.relative_to(HERE)) for path in HERE.rglob("*.[ch]")} - set(SOURCES))

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow"]
FLAGS = ["-std=gnu11", "-O3", "-fvisibility=hidden", *WARNINGS]
if os.environ.get("PYSOCK_WERROR") == "1":
    FLAGS.append("-Werror")

DECLARATIONS = "".join(path.read_text() for path in sorted(HERE.glob("pysock_abi*.h")))
#: What an extension and the Python files beside it must have in common: see pysock/engine/native/abi.py.
ABI = int(hashlib.sha256(DECLARATIONS.encode()).hexdigest()[:8], 16)

ffibuilder = FFI()
ffibuilder.cdef(DECLARATIONS)
ffibuilder.set_source(
    "pysock._engine",
    '#include "pysock.h"',
    # Relative to the project: absolute paths would end up in the sdist's list of files.
    sources=[f"csrc/{name}" for name in SOURCES],
    depends=[f"csrc/{name}" for name in [*INCLUDED, "build_engine.py"]],
    include_dirs=["csrc"],
    libraries=["dl"],  # dlopen(3): in libc itself since glibc 2.34
    extra_compile_args=FLAGS,
    # python/ calls handlers by vectorcall and builds bytes in place, which the limited API has not.
    define_macros=[("_GNU_SOURCE", None), ("_CFFI_NO_LIMITED_API", None), ("PYSOCK_ABI", f"{ABI:#x}u")],
    py_limited_api=False,
)
