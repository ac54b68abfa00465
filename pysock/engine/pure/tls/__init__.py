"""What a server's connections need to speak TLS. It is imported where a listener does."""
