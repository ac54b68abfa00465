"""Who comes: what is looked at before a connection is anybody's."""
