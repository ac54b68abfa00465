"""The engines: ``contract`` says what one does, ``choice`` which one runs, ``native`` and ``pure`` are the two."""
