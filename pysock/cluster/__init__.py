"""Several servers that behave as one, over a bus: who has which client, and the ways from one node to another."""
