"""The version, once; read by the build and by ``pysock.__version__``."""

__version__ = "0.1.0"
