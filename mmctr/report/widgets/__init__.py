"""Explorers for JupyterLab: an impression and its attention, items with their neighbours, and an
item that is described."""
