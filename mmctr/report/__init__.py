"""What a person sees: notebooks executed into pages, their figures, and explorers for JupyterLab.

May import from every other room; only the command line imports from here.
"""
