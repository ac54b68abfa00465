"""A running server hands its clients over to the process that follows it: the protocol PHO1.

``take(server, fd)`` in ``relay.py`` is the new side, ``give(server, fd)`` in ``give.py`` the old one, and
``Server(handover=...)`` is made of both.
"""
