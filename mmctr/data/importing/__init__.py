"""A click log becomes a dataset, one file a step of `mmctr data import`.

sources (any table, by DuckDB) -> items, events (clicks in order) -> splits -> negatives -> covers,
writing; recipe holds the
options, and steps runs them all.
"""
