"""Figures of a dataset, and plain ones for any table."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmctr.report.figures.style import MAIN, PALETTE, SECOND, as_text, error_bars, new_figure


def history_lengths(lengths: dict[str, np.ndarray]) -> go.Figure:
    """Share of rows by history length, a line a split."""
    figure = new_figure("History length (clicks)", "Rows with at least as many clicks (%)")
    for split, values in lengths.items():
        counts = np.bincount(values)
        share = 100 * (1 - (np.cumsum(counts) - counts) / len(values))
        figure.add_scatter(x=np.arange(len(counts)), y=share, name=split, mode="lines")
    return figure


def popularity(clicks: np.ndarray) -> go.Figure:
    """Train clicks of each item by its popularity rank, on logarithmic axes."""
    ordered = np.sort(clicks[clicks > 0])[::-1]
    # A few hundred points, evenly spread over the logarithm, draw the same line as all of them.
    ranks = np.unique(np.geomspace(1, max(len(ordered), 1), 300).astype(int))[: len(ordered)]
    figure = new_figure("Popularity rank of the item (log)", "Train clicks (log)")
    figure.add_scatter(x=ranks, y=ordered[ranks - 1], mode="lines", line_color=MAIN)
    return figure.update_xaxes(type="log", dtick=1).update_yaxes(type="log", dtick=1)


def bars(table: pd.DataFrame, x: str, y: str, *, x_title: str, y_title: str) -> go.Figure:
    """Plain bars of one column over another; columns `low` and `high`, if there, are intervals."""
    figure = new_figure(x_title, y_title)
    error = error_bars(table, y) if {"low", "high"} <= set(table) else None
    figure.add_bar(
        x=table[x].astype(str).map(as_text), y=table[y], error_y=error, marker_color=MAIN
    )
    return figure.update_xaxes(type="category")


def histogram(values: np.ndarray, x_title: str, *, low: float, high: float) -> go.Figure:
    """Share of rows in 20 equal bins from low to high; a line at the mean."""
    counts, edges = np.histogram(values, bins=20, range=(low, high))
    figure = new_figure(x_title, "Rows (%)")
    share = 100 * counts / max(counts.sum(), 1)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    figure.add_bar(x=middle, y=share, width=width * 0.95, marker_color=MAIN)
    mean = float(np.mean(values))
    figure.add_vline(
        mean,
        line={"color": SECOND, "dash": "dot"},
        annotation={"text": f"mean {mean:.2f}", "y": 1, "yanchor": "bottom", "xanchor": "center"},
    )
    return figure.update_layout(height=320)


def distributions(columns: dict[str, np.ndarray], x_title: str) -> go.Figure:
    """Box plots side by side: box = middle half, whiskers = middle 90%."""
    figure = new_figure(x_title, "")
    for number, (name, values) in enumerate(columns.items()):
        low, first, median, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        figure.add_box(
            y=[name],
            q1=[first],
            median=[median],
            q3=[third],
            lowerfence=[low],
            upperfence=[high],
            orientation="h",
            name=name,
            marker_color=PALETTE[number],
        )
    return figure.update_layout(showlegend=False, height=120 + 70 * len(columns))
