"""The commands that ask a running server, or tell it something: by its admin socket. One file a command."""
