"""Who is where in a cluster: every node has the whole list, and nobody owns it. Without I/O, clocks and threads.

Each node tells of its own clients alone, and what it says of them is right. So there is nothing to agree on, and the
bus may lose, delay and cut whatever it likes: what was lost is noticed by a number and a hash, and asked for again.

========== ===========================================================================================
words      the numbers of the protocol, and the states that others see
messages   to and from bytes
rows       one client in a few bytes, and the clients of one node
names      who has which name
rivals     which of several clients of one name stays, where only one may
own        this node's clients: what is told of them, and pages of them for who asks
node       another node: what is known of it, and its list, where that has to be fetched
telling    what this node says
events     what may have happened
machine    all of it: messages and time in, messages and events out
========== ===========================================================================================
"""
