"""What a server asks its clients, and what clients answer: both are above the engines, which carry the frames."""
