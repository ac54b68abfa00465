"""The life of a Unix socket's file: where it is, who holds its lock, whether somebody listens there, and its removal."""
