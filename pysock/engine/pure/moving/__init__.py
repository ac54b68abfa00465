"""Clients that move to the process that follows, or come from the one before: :mod:`pysock.engine.moving`."""
