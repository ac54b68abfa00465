"""The bus between the nodes of a cluster: one contract, and its drivers. It knows nothing of clients or directories."""
