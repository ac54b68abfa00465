"""Handlers that are ``async def``: how their coroutines begin, run as tasks of the loop, and end."""
