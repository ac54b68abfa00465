"""The bus of one machine: no server to install. One of the nodes runs a hub, the others are its clients."""
