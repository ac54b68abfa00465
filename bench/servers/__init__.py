"""The echo servers that are measured, each in its best idiom and in a file of its own; ``python -m bench.servers.NAME ADDR``.

All but those with a wire format of their own cut messages alike: 4 bytes of length, big-endian, then the payload.
"""
