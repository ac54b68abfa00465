"""A listener with a thread of its own, beside a server: what it is asked there it answers without the server's loop."""
