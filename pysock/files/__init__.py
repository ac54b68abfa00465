"""The life of a Unix socket's file: its place, its lock, whether somebody listens there, and its removal."""
