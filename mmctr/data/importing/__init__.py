"""A click log becomes a dataset, one file a step of `mmctr data import`.

sources (any table, by DuckDB) -> items, log (its columns understood) -> sorting -> events (in
order) -> splits -> negatives -> covers, writing; recipe holds the options, and steps runs them all.
On a Spark cluster (cluster) the log goes through the same steps in parts (spark).
"""
