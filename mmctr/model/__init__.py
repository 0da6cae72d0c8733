"""The Deep Interest Network of the paper: layers, one class an idea, and what assembles them.

It knows nothing of files, optimizers or runs. May import from content and data.
"""
