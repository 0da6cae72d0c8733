"""Figures of what a model looks at."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmctr.report.figures.style import DOTTED, MAIN, as_text, error_bars, new_figure


def attention_heads(table: pd.DataFrame, titles: np.ndarray, ids: np.ndarray) -> go.Figure:
    """Attention of every head over one row's history. Columns: age, item, head, weight.

    titles, ids (the items' own): text by item number, to hover over.
    """
    weights = table.pivot(index="head", columns="age", values="weight").iloc[:, ::-1]
    items = table.drop_duplicates("age").set_index("age")["item"][weights.columns]
    told = [f"{as_text(titles[one])}<br>item {as_text(ids[one])}" for one in items]
    hover = np.tile([words.removeprefix("<br>") for words in told], (len(weights), 1))
    figure = new_figure("Click of the history (1 = the latest)", "Head")
    figure.add_heatmap(
        z=weights.to_numpy(),
        x=weights.columns.astype(str),
        y=weights.index.astype(str),
        text=hover,
        colorscale="Viridis",
        colorbar={"title": {"text": "Weight"}},
        hovertemplate="%{text}<br>head %{y}: %{z:.3f}<extra></extra>",
    )
    figure.update_xaxes(type="category", nticks=20).update_yaxes(type="category")
    return figure.update_layout(height=100 + 32 * len(weights), margin_t=15)


def lines_by_head(table: pd.DataFrame, x: str, y: str, *, x_title: str, y_title: str) -> go.Figure:
    """One line a head, and one at 1, an even share of the weight. Columns: head, x and y."""
    figure = new_figure(x_title, y_title)
    for head, part in table.groupby("head"):
        figure.add_scatter(x=part[x], y=part[y], name=f"head {head}", mode="lines+markers")
    return figure.add_hline(1, line=DOTTED, name="an even share of the weight")


def field_weights(table: pd.DataFrame) -> go.Figure:
    """SENet's weights: mean and the middle 90% of rows. Columns: field, mean, low, high."""
    return _by_field(table, "SENet weight (0 to 1)")


def importance(table: pd.DataFrame) -> go.Figure:
    """AUC lost by shuffling a field: mean, least and most. Columns: field, mean, low, high."""
    return _by_field(table, "Valid AUC lost by shuffling").add_vline(
        0, line=DOTTED, name="nothing lost"
    )


def _by_field(table: pd.DataFrame, x_title: str) -> go.Figure:
    table = table.iloc[::-1]
    figure = new_figure(x_title, "")
    figure.add_scatter(
        x=table["mean"],
        y=table["field"],
        error_x=error_bars(table, "mean"),
        mode="markers",
        marker={"size": 9, "color": MAIN},
    )
    return figure.update_layout(height=120 + 28 * len(table))
