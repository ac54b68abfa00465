"""The benchmarks: pysock against its peers and against a bare C server, each in its best idiom.

``python -m bench`` runs the scenarios, ``python -m bench report`` draws them, and writes ``bench/README.md`` and the
README's figures; ``python -m pytest bench --benchmark-only`` compares the engines, and pysock's client with others, one
call at a time. All of it runs from a checkout in which pysock is installed with the extra ``bench``.
"""
