"""The laboratory: what takes longer than a test, or breaks things on purpose. ``python -m tests.lab`` runs it.

Each module here owns a few experiments (``experiment.py`` says what one is); ``__main__.py`` runs them and prints the
table of results. ``--quick`` is the form that runs in CI; without it they go to the bounds that the issue tracker asks
for before a release. Whatever is random in an experiment comes from its seed, so ``--seed`` repeats a run.
"""
