"""What a client's calls go through: the handshake, whose turn it is, what comes unasked, and calls that lead back."""
