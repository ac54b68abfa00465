"""Who is there, beside the engine's own table: what clients are put together under, and which of them are meant."""
