"""Explorers for JupyterLab: an impression and its attention, and items with their neighbours."""
