"""The doctor: what could be better with a running server, in sentences, each with its remedy."""
