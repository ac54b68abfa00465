"""What is tried of TLS: the suite over it, faults of libssl, floods of handshakes, verdicts of others."""
