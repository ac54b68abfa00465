"""What a handler may return in place of a reply."""
