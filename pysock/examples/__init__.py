"""Programs to read and to run: ``python -m pysock.examples.NAME``.

``upper``          the smallest server
``routing_table``  a server that keeps a table and pushes every change to all of its clients
``watch``          the same with clients that survive a restart of the server
``chat``           rooms in which clients talk: groups, late comers, and clients that don't keep up
``bridge``         an asyncio program with a server in its loop, whose async handler awaits another server
``redis_server``   a server for a protocol that is not ours: ``redis-cli`` and ``redis-benchmark`` can use it
``tls``            both ends of TLS, with certificates that it makes
``outlines``       a service that computes, in processes of its own
``by_hand``        a master socket and a data socket without a server, one system call a line
"""
