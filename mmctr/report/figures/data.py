"""Figures of a dataset, and plain ones for any table."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmctr.report.figures.style import (
    DOTTED,
    MAIN,
    PALETTE,
    QUIET,
    SECOND,
    as_text,
    error_bars,
    new_figure,
)

# A list to choose from, above the plot.
MENU = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}
MENU |= {"bgcolor": "white", "bordercolor": QUIET, "showactive": False}  # pages have their own


def history_lengths(lengths: dict[str, np.ndarray]) -> go.Figure:
    """Share of rows by history length, a line a split."""
    figure = new_figure("History length (clicks)", "Rows with at least<br>as many clicks (%)")
    for split, values in lengths.items():
        counts = np.bincount(values)
        share = 100 * (1 - (np.cumsum(counts) - counts) / len(values))
        figure.add_scatter(x=np.arange(len(counts)), y=share, name=split, mode="lines")
    return figure


def popularity(clicks: np.ndarray) -> go.Figure:
    """Train clicks of each item by its popularity rank, on logarithmic axes.

    A line says what share of the clicks the most popular tenth of all items has.
    """
    ordered = np.sort(clicks[clicks > 0])[::-1]
    tenth = max(1, len(clicks) // 10)
    share = ordered[:tenth].sum() / max(1, ordered.sum())
    # A few hundred points, evenly spread over the logarithm, draw the same line as all of them.
    ranks = np.unique(np.geomspace(1, max(len(ordered), 1), 300).astype(int))[: len(ordered)]
    figure = new_figure("Popularity rank of the item (log)", "Train clicks (log)")
    figure.add_scatter(x=ranks, y=ordered[ranks - 1], mode="lines", line_color=MAIN)
    told = f"a tenth of all items, left of which {share:.0%} of the clicks lie"
    figure.add_vline(tenth, line=DOTTED, name=told)
    return figure.update_xaxes(type="log", dtick=1).update_yaxes(type="log", dtick=1)


def bars(table: pd.DataFrame, x: str, y: str, *, x_title: str, y_title: str) -> go.Figure:
    """Plain bars of one column over another.

    Columns `low` and `high`, if there, are intervals; `rows` is told on hover.
    """
    figure = new_figure(x_title, y_title)
    error = error_bars(table, y) if {"low", "high"} <= set(table) else None
    hover = {}
    if "rows" in table:
        hover = {"hovertemplate": "%{x}: %{y:.1f}, %{text}<extra></extra>", "textposition": "none"}
        hover["text"] = table["rows"].map("{:,} rows".format)
    figure.add_bar(
        x=table[x].astype(str).map(as_text), y=table[y], error_y=error, marker_color=MAIN, **hover
    )
    return figure.update_xaxes(type="category")


def rate_bars(table: pd.DataFrame, mean: float, *, x_title: str, y_title: str) -> go.Figure:
    """Bars of the share of clicks (%) by value, with interval. Columns: value, rows, rate, low,
    high. mean: the share over all rows, a line."""
    figure = bars(_percent(table), "value", "rate", x_title=x_title, y_title=y_title)
    return figure.add_hline(100 * mean, line=DOTTED, name=f"all rows, {mean:.0%}")


def rates(tables: dict[str, pd.DataFrame], rate_title: str, mean: float) -> go.Figure:
    """Share of clicks (%) by value, with interval: a field at a time, chosen from a list.

    tables: by title of the field. Columns: value, rows, rate, low, high, and predicted, if there.
    mean: the share over all rows, a line.
    """
    figure, owners = new_figure(rate_title, ""), []
    legend = 30 if any("predicted" in table for table in tables.values()) else 0
    figure.add_vline(100 * mean, line=DOTTED, name=f"all rows, {mean:.0%}")
    for title, table in tables.items():
        shown, parts = title == next(iter(tables)), _rate_marks(table)
        owners += [title] * len(parts)
        for name, part in parts.items():
            figure.add_scatter(**part, name=name, visible=shown)
    heights = {title: 140 + legend + 26 * len(table) for title, table in tables.items()}
    buttons = [
        {
            "label": as_text(title),
            "method": "update",
            "args": [{"visible": [owner == title for owner in owners]}, {"height": height}],
        }
        for title, height in heights.items()
    ]
    figure.update_yaxes(type="category", autorange="reversed", ticksuffix="  ")
    figure.update_layout(height=next(iter(heights.values())), showlegend=legend > 0)
    if len(tables) > 1:
        menu = MENU | {"buttons": buttons, "pad": {"b": 14 + legend}}  # above the legend
        figure.update_layout(updatemenus=[menu], margin_t=60 + legend)
    return figure


def _rate_marks(table: pd.DataFrame) -> dict[str, dict]:
    """The marks of one field: observed shares with intervals, and predicted ones, if there."""
    percent = _percent(table)
    marks = {
        "observed": {
            "x": percent["rate"],
            "error_x": error_bars(percent, "rate"),
            "marker": {"size": 9, "color": MAIN},
            "hovertemplate": "%{y}: %{x:.1f}% of %{text}<extra></extra>",
        }
    }
    if "predicted" in table:
        marks["predicted"] = {
            "x": 100 * table["predicted"],
            "marker": {"size": 11, "color": SECOND, "symbol": "diamond-open", "line": {"width": 2}},
            "hovertemplate": "%{y}: %{x:.1f}% predicted, %{text}<extra></extra>",
        }
    same = {"y": table["value"].map(as_text), "text": table["rows"].map("{:,} rows".format)}
    return {name: one | same | {"mode": "markers"} for name, one in marks.items()}


def _percent(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{name: 100 * table[name] for name in ("rate", "low", "high")})


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
        name="the mean",
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
