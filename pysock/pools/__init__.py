"""Pools: handlers that run in threads or processes of their own, so that the loop goes on meanwhile."""
