"""The access log: one line for each connection that ended, or for requests, written beside the loop."""
