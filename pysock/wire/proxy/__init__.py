"""The header of the PROXY protocol, by which a proxy says for whom it connects (proxy-protocol.txt of HAProxy)."""
