"""What an admin socket answers of one server: one file a service, or a pair that belongs together."""
