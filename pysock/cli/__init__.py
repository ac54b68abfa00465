"""The command line. ``main`` is the command and its exit codes; click parses, rich draws (the extra ``cli``)."""
