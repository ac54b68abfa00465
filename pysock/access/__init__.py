"""Who is at the other end, and who may come in."""
