"""The demo: ``pysock demo``. ``run`` is the whole of it, ``client`` the program of one of its client processes."""
