"""Requests without an answer. ``pending``: how many, and which of them get one; ``batch``: those of batch services;
``deferred``: those whose handler has returned, and that are answered later.
And ``pushed``: pushes that wait to be sent.
"""
