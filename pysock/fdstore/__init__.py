"""Clients that outlive their server's process in the keeping of its service manager: systemd's store of descriptors."""
