"""The floor of everything: what knows neither sockets' states nor the protocol, and could serve any program."""
