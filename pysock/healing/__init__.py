"""Clients that heal: when they connect again, and what is sent again. Tables and a machine without I/O, and drivers."""
