"""Figures of the challenge's systems."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmctr.report.figures.style import DOTTED, MAIN, SECOND, as_text, log_ticks, new_figure

LARGEST, SMALLEST = 42, 10  # marks, in pixels
PLOT = (220, 120)  # where it is smallest, on a phone and on paper
LETTER, LINE = 7, 15  # of a name
PLACES = {  # of a name at its mark: to the right and up
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top center": (0, 1),
    "bottom center": (0, -1),
}


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
    share = np.sqrt(table["parameters"] / table["parameters"].max())
    sizes = SMALLEST + (LARGEST - SMALLEST) * share
    seconds = np.log(table["seconds to its best"].astype(float).clip(lower=1e-3))
    clear = table["p_holm"].fillna(0) < 0.05
    figure.add_scatter(
        x=table["seconds to its best"],
        y=table["AUC"],
        mode="markers+text",
        cliponaxis=False,  # names above the highest mark stand in the margin
        text=table["system"].map(as_text),
        textposition=_places(seconds, table["AUC"], sizes, table["system"]),
        marker={
            "size": sizes,
            "color": [MAIN, *[SECOND] * (len(table) - 1)],
            "symbol": clear.map({True: "circle", False: "circle-open"}),
            "opacity": 0.8,
        },
        customdata=table["parameters"],
        hovertemplate="%{text}: AUC %{y:.4f} after %{x:,.0f} s, %{customdata:,} parameters"
        "<extra></extra>",
    )
    figure.update_xaxes(type="log", **log_ticks(table["seconds to its best"]))
    figure.update_yaxes(tickformat=".3f")
    if len(best) == 1:
        figure.data = figure.data[1:]  # a line of one point is none
    meta = {} if clear.all() else {"hollow": "could be chance that it differs from the default"}
    return figure.update_layout(showlegend=False, margin_t=40, meta=meta)


def _places(x: pd.Series, y: pd.Series, sizes: pd.Series, names: pd.Series) -> list[str]:
    """Where each name covers the least of other names and marks, and of what is beyond the plot."""
    along, up = ((v - v.min()) / max(np.ptp(v), 1e-9) for v in (x, y))
    centres = np.stack([along * (PLOT[0] - LARGEST), up * (PLOT[1] - LARGEST)], axis=1)
    radii = sizes.to_numpy()[:, None] / 2
    taken = [*np.hstack([centres - radii, centres + radii])]  # left, bottom, right, top
    inside = np.array([-LARGEST / 2, -LARGEST / 2, PLOT[0] - LARGEST / 2, PLOT[1]])
    chosen = []
    for number, name in enumerate(names):
        half, covered = np.array([LETTER * len(name), LINE]) / 2, {}
        others = [box for other, box in enumerate(taken) if other != number]
        for place, direction in PLACES.items():
            middle = centres[number] + np.array(direction) * (radii[number] + half)
            box = np.hstack([middle - half, middle + half])
            beyond = 4 * half.prod() - _shared(box, inside)
            covered[place] = sum(_shared(box, other) for other in others) + 2 * beyond, box
        chosen.append(min(covered, key=lambda place, covered=covered: covered[place][0]))
        taken.append(covered[chosen[-1]][1])
    return chosen


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two boxes share."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(sides.clip(min=0).prod())
