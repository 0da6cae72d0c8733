"""A click log becomes a dataset, one file a step of `mmctr data import`.

sources (any table) -> events (clicks in order) -> splits -> negatives -> writing; recipe holds the
options, and steps runs them all.
"""
