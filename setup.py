"""The part of the build that pyproject.toml can't say: whether to build the C engine.

``PYSOCK_BUILD=auto`` (the default) builds it on Linux with CPython and goes on without it, with one warning, where that
fails; ``require`` fails instead; ``skip`` doesn't try.
"""

import os
import platform
import re
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

CHOICES = ("auto", "require", "skip")


def chosen() -> str:
    choice = os.environ.get("PYSOCK_BUILD", "auto")
    if choice not in CHOICES:
        sys.exit(f"PYSOCK_BUILD={choice}: choose one of {', '.join(CHOICES)}")
    return choice


def warn(reason: str) -> None:
    print(
        f"\n*** pysock: installing WITHOUT the native engine: {reason}.\n"
        "*** The pure-Python engine does the same, more slowly. PYSOCK_BUILD=skip makes this quiet. To see it fail,\n"
        "*** and to have it once there is a compiler:\n"
        "*** PYSOCK_BUILD=require pip install --no-cache-dir --force-reinstall --no-binary pysock-engine"
        " pysock-engine\n",
        file=sys.stderr,
    )


def unsupported() -> str:
    """Return why the native engine can't run here, or nothing."""
    if sys.platform != "linux":
        return f"it needs Linux, this is {sys.platform}"
    if platform.python_implementation() != "CPython":
        return f"it needs CPython, this is {platform.python_implementation()}"
    return ""


class OptionalBuild(build_ext):
    """Build the extension, or go on without it."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # no compiler, no headers: whatever it is, the pure engine works
            if chosen() == "require":
                raise
            warn(re.sub(r"Command '\[.*\]'", "the command above", str(error)).rstrip("."))
            self._forget()

    def _forget(self) -> None:
        """Nothing that an earlier build has left may pass for this one's."""
        for extension in self.extensions:
            file = self.get_ext_filename(extension.name)  # in place, as for an editable installation, and to be shipped
            for path in (Path(file), Path(self.build_lib) / file):
                path.unlink(missing_ok=True)
        self.extensions = []
        self.distribution.ext_modules = []


class FreshBuild(build):
    """Begin with an empty folder: modules that were deleted since an earlier build would be shipped, too."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class HonestWheel(bdist_wheel):
    """A wheel without the engine is for every machine, and is tagged so: a cache may keep either."""

    def run(self) -> None:
        self.run_command("build")  # only now it is known
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


class WholeSource(sdist):
    """The same source distribution wherever it is made: with the C engine, and with what checks and measures it."""

    def make_distribution(self) -> None:
        found = [path for folder in ("csrc", "tests", "bench") for path in sorted(Path(folder).rglob("*"))]
        kinds, corpus = (".py", ".c", ".h", ".dict", ".md"), Path("tests/fuzz/corpus")
        sources = [path for path in found if path.suffix in kinds or path.name == "Makefile"]
        sources += [path for path in found if corpus in path.parents and path.is_file()]
        self.filelist.extend(map(str, sources))
        self.filelist.append("CHANGELOG.md")
        self.filelist.remove_duplicates()
        super().make_distribution()


def options() -> dict:
    choice, reason = chosen(), unsupported()
    if choice == "skip":
        return {}
    if reason and choice == "require":
        sys.exit(f"PYSOCK_BUILD=require, but the native engine can't be built: {reason}")
    if reason:
        warn(reason)
        return {}
    return {"cffi_modules": ["csrc/build_engine.py:ffibuilder"]}


setup(
    cmdclass={
        "build": FreshBuild,
        "build_ext": OptionalBuild,
        "bdist_wheel": HonestWheel,
        "sdist": WholeSource,
    },
    **options(),
)
