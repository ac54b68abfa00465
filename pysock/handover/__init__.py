"""A running server hands its clients over to the process that follows it: the protocol PHO1."""
