"""The client's end of one connection in Python."""
