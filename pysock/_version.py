"""The version, once; read by the build and by ``pysock.__version__``.

Between releases it is a development one, so that no cache of an installer takes it for the release.
"""

__version__ = "0.1.0.dev0"
