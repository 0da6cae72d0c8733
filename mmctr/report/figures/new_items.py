"""Figures of new, cold and warm items."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmctr.report.figures.training import add_groups


def auc_by_newness(table: pd.DataFrame) -> go.Figure:
    """AUC with interval of new, cold and warm items, a plot for each kind of negatives.

    Columns: group, auc, low, high, clicks, system, against.
    """
    kinds = list(dict.fromkeys(table["against"]))
    # One above the other: side by side, systems and intervals would not fit a phone.
    shape = {"rows": max(1, len(kinds)), "cols": 1, "subplot_titles": kinds or None}
    figure = make_subplots(**shape, vertical_spacing=0.26)
    for row, kind in enumerate(kinds, start=1):
        part = table[table["against"] == kind]
        counts = part.groupby("group", sort=False)["clicks"].first()
        labels = [f"{group}<br>{count:,} clicks" for group, count in counts.items()]
        add_groups(figure, part, labels, row=row, col=1)
    figure.update_xaxes(title_text="Target, by its clicks in train")
    figure.update_yaxes(title_text="AUC (0.5 is chance)")
    return figure.update_layout(template="mmctr", height=700, legend_y=1.06)
