"""The pure-Python engine: the same contract, the same bytes on the wire, no compiler."""
