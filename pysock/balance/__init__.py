"""Several addresses of one service: which is tried when, and which is left alone. No I/O, but in the drivers."""
