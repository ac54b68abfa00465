"""``pysock cluster nodes | clients | send | watch | check``: a cluster from outside, by its bus."""
