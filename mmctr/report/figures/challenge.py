"""Figures of the challenge's systems."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmctr.report.figures.style import DOTTED, MAIN, SECOND, as_text, new_figure

LARGEST, SMALLEST = 42, 10  # marks, in pixels


def quality_against_cost(table: pd.DataFrame) -> go.Figure:
    """AUC of each system by the seconds to its best; the area of a mark grows with the parameters.

    The dotted line joins the systems that no other beats in both. Columns: system (the first is
    what the others are compared with), AUC, seconds to its best, parameters, p_holm.
    """
    figure = new_figure("Seconds of training<br>to its best (log scale)", "AUC")
    best = table.sort_values("seconds to its best")
    best = best[best["AUC"] == best["AUC"].cummax()]
    figure.add_scatter(
        x=best["seconds to its best"],
        y=best["AUC"],
        mode="lines",
        line=DOTTED | {"shape": "hv"},
        name="what no other beats in both",
        hoverinfo="skip",
    )
    # Names at the sides stand within the plot, whose border would cut them.
    along = np.log(table["seconds to its best"].astype(float).clip(lower=1e-3))
    along = (along - along.min()) / max(np.ptp(along), 1e-9)
    sides = pd.cut(along, [-1, 0.33, 0.67, 1], labels=["middle right", "top center", "middle left"])
    share = np.sqrt(table["parameters"] / table["parameters"].max())
    clear = table["p_holm"].fillna(0) < 0.05
    figure.add_scatter(
        x=table["seconds to its best"],
        y=table["AUC"],
        mode="markers+text",
        text=table["system"].map(as_text),
        textposition=sides.astype(str),
        marker={
            "size": SMALLEST + (LARGEST - SMALLEST) * share,
            "color": [MAIN, *[SECOND] * (len(table) - 1)],
            "symbol": clear.map({True: "circle", False: "circle-open"}),
            "opacity": 0.8,
        },
        customdata=table["parameters"],
        hovertemplate="%{text}: AUC %{y:.4f} after %{x:,.0f} s, %{customdata:,} parameters"
        "<extra></extra>",
    )
    ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    words = [f"{tick:,}" for tick in ticks]  # plotly writes the 2 of 200 alone
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=words)
    figure.update_yaxes(tickformat=".3f")
    if len(best) == 1:
        figure.data = figure.data[1:]  # a line of one point is none
    meta = {} if clear.all() else {"hollow": "could be chance that it differs from the default"}
    return figure.update_layout(showlegend=False, margin_t=40, meta=meta)
