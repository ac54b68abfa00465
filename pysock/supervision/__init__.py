"""Who runs a server: what it tells systemd, and the processes that share its work."""
