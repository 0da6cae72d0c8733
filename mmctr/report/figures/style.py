"""How figures look, light and dark: colours are fixed per strategy and colour-blind safe (Okabe and
Ito, 2008), backgrounds are transparent.
"""

from collections.abc import Iterable
from html import escape
from itertools import cycle

import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C")
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x")  # of equal colours
STRATEGIES = ("v1", "v2", "v3", "v4", "ids", "v5", "v6")
STRATEGY_COLORS = dict(zip(STRATEGIES, (*PALETTE[:6], "#332288"), strict=True))
PROVIDED_COLORS = ("#117733", "#999933", "#9A6FD0", "#B5651D")  # of ready-made columns, in order
# Of what is not trained.
SYSTEM_COLORS = {"oracle": PALETTE[6], "cosine of text": "#7A6A53", "cosine of image": "#B0A08A"}
MAIN, SECOND, QUIET = PALETTE[0], PALETTE[3], PALETTE[6]
GRID = "rgba(128, 128, 128, 0.25)"
DOTTED = {"color": QUIET, "dash": "dot"}  # a line to compare with
# Words at a horizontal line, beside the plot: within it, marks would hide them.
BESIDE = {"x": 1.01, "xanchor": "left", "yanchor": "middle", "align": "left"}
pio.templates["mmctr"] = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#7a8290"},
        "colorway": PALETTE,
        "xaxis": {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True},
        "yaxis": {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True},
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},  # a legend makes its own room
        "height": 400,
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "colorscale": {"sequential": "Blues"},
    }
)


def strategy_color(system: str) -> str:
    """The colour of a strategy, or of what needs no training, the same in every figure.

    A system that is called by its strategy and more, `v4 heads=2`, has the strategy's.
    """
    if system in SYSTEM_COLORS:
        return SYSTEM_COLORS[system]
    known = [name for name in STRATEGY_COLORS if f"{system} ".startswith(f"{name} ")]
    provided = PROVIDED_COLORS[sum(map(ord, system)) % len(PROVIDED_COLORS)]
    return STRATEGY_COLORS[max(known, key=len)] if known else provided


def symbols(systems: Iterable[str]) -> dict[str, str]:
    """A mark for each system, so that those of one strategy, which share its colour, differ."""
    names = pd.Series([*systems]).drop_duplicates()
    number = names.groupby(names.map(strategy_color)).cumcount()
    marks = [SYMBOLS[place % len(SYMBOLS)] for place in number]
    return dict(zip(names, marks, strict=True))


def assign_colors(strategies: Iterable[str]) -> None:
    """Give each strategy that has no colour of its own the next one of PROVIDED_COLORS.

    Named in the same order, as `available_strategies` does, they get the same colours in every
    notebook on a dataset.
    """
    others = [name for name in strategies if name not in STRATEGIES]
    STRATEGY_COLORS.update(zip(others, cycle(PROVIDED_COLORS), strict=False))


def as_text(title: str) -> str:
    """A title that plotly shows as it is: angle brackets would be read as HTML."""
    return escape(str(title), quote=False)


def new_figure(x_title: str, y_title: str) -> go.Figure:
    layout = {"template": "mmctr", "xaxis_title": x_title, "yaxis_title": y_title}
    return go.Figure(layout=layout)


def error_bars(table: pd.DataFrame, column: str) -> dict:
    """Around the values of a column, from those of `low` to those of `high`."""
    above, below = table["high"] - table[column], table[column] - table["low"]
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1.5}
