"""The supervisor runs anew in its own process, with its workers."""
