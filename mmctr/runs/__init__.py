"""A training is kept: the run folder, written whole, read back, gone on with, and verified.

May import from training, model, content and data.
"""
