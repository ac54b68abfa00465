"""The protocol without any I/O: bytes in, what they mean out. Tests hold both engines against it."""
