"""The native engine: the crossing to the C code of ``csrc``. Only this folder imports ``pysock._engine``."""
