"""A model learns: batches, the loop, its optimizer, metrics and predictions; nothing is saved here.

May import from model, content and data.
"""
