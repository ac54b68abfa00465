"""What is told to whoever sends clients: whether more are welcome, and how many."""
