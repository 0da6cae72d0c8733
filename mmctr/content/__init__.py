"""What items look like becomes vectors: encoders of titles and covers, strategies that fuse them.

strategies.py is the one registry; fusion.py applies it to a catalog. May import from data.
"""
