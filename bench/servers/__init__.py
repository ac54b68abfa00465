"""The echo servers that are measured, each in its best idiom: ``python -m bench.servers.NAME unix:PATH``.

All but those with a wire format of their own cut messages alike: 4 bytes of length, big-endian, then the payload.
"""
