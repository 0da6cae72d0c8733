"""Runs and models are judged: side by side, one part at a time, by search, and by what they read.

May import from runs and all that runs may import.
"""
