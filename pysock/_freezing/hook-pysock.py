"""What PyInstaller can't see: the extension imports cffi's backend from C, and the public names are loaded by name."""

from pysock import _HOMES

hiddenimports = ["_cffi_backend", "pysock.engine.pure.turn", *(f"pysock.{home}" for home in _HOMES)]
