"""What a handler may return in place of a reply, and what it may ask of the request that it runs for."""
