"""The loggers. They are silent until the program configures logging, as a library's should be.

What an operator may want to know goes to ``pysock.server``, what a client's user may want to know to ``pysock.client``;
the classical steps of the sockets are there at DEBUG.
"""

import logging

logging.getLogger("pysock").addHandler(logging.NullHandler())

server_log = logging.getLogger("pysock.server")
client_log = logging.getLogger("pysock.client")
