"""The admin socket: what an operator asks a running server, and tells it, without waiting for its loop."""
