"""How figures look, light and dark: backgrounds are transparent, colours safe for the colour-blind.

Those of strategies are fixed (Okabe and Ito, 2008), and nothing else has them: tags, heads, splits
and the like take another palette (Tol, 2021, "bright").
"""

from collections.abc import Iterable
from html import escape
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio

PALETTE = ("#4477AA", "#CCBB44", "#228833", "#EE6677", "#AA3377", "#66CCEE", "#8C8C8C")
OF_STRATEGIES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#6655CC")
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x")  # of equal colours
STRATEGIES = ("v1", "v2", "v3", "v4", "ids", "v5", "v6")
STRATEGY_COLORS = dict(zip(STRATEGIES, OF_STRATEGIES, strict=True))
PROVIDED_COLORS = ("#117733", "#999933", "#9A6FD0", "#B5651D")  # of ready-made columns, in order
# Of what is not trained.
SYSTEM_COLORS = {"oracle": PALETTE[6], "cosine of text": "#7A6A53", "cosine of image": "#B0A08A"}
MAIN, SECOND, QUIET = PALETTE[0], PALETTE[3], PALETTE[6]
GRID = "rgba(128, 128, 128, 0.25)"
DOTTED = {"color": QUIET, "dash": "dot"}  # a line to compare with
# What an AUC is compared with.
REFERENCES = {
    "popularity": "ranking by popularity alone",
    "oracle": "the oracle, which no model can beat",
    "defaults": "the default parameters",
}
# Words at a horizontal line, beside the plot: within it, marks would hide them.
BESIDE = {"x": 1.01, "xanchor": "left", "align": "left"}
CLOSE = 0.12  # share of the axis that two lines of words take
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


def log_ticks(values: pd.Series) -> dict[str, list]:
    """Ticks of a logarithmic axis, written out: at 1 and 3, or of many decades at some of 1.

    plotly writes the 2 of 200 alone. A narrow range is left to it, which then counts evenly.
    """
    low, high = np.log10([values.min(), values.max()])
    if high - low < 0.6:
        return {}
    powers = 10 ** np.arange(np.floor(low), high + 1)
    every = -(-len(powers) // 4)
    ticks = powers[::every] if high - low > 2 else np.sort([*powers, *(3 * powers)])
    words = [f"{tick:,g}".replace("e-0", "e-").replace("e+0", "e") for tick in ticks]
    return {"tickvals": ticks, "ticktext": words}


def add_references(figure: go.Figure, references: dict[str, float]) -> go.Figure:
    """Dotted lines at the AUC of what needs no training, by name, with words beside the plot.

    Of two lines that are close the words stand above the upper and below the lower one.
    """
    drawn = [float(value) for trace in figure.data for value in trace.y if value == value]
    ordered = sorted(references.items(), key=lambda one: one[1])
    values = [value for _, value in ordered]
    near = CLOSE * np.ptp([*drawn, *values]) if values else 0
    for number, (name, value) in enumerate(ordered):
        is_upper = number > 0 and value - values[number - 1] < near
        is_lower = number + 1 < len(values) and values[number + 1] - value < near
        anchor = "bottom" if is_upper else "top" if is_lower else "middle"
        words = BESIDE | {"text": f"{name}<br>{value:.4f}", "yanchor": anchor}
        called = REFERENCES.get(name, name)
        figure.add_hline(value, line=DOTTED, name=called, annotation=words)
    return figure


def in_words(figure: go.Figure) -> str:
    """What lines and marks of a figure mean that no legend tells, for its caption.

    Lines that compare are dotted, and have names; of the rest the figure's function keeps as the
    layout's meta, by look, what it means, as far as it is drawn.
    """
    legend = figure.layout.showlegend is not False
    dotted = [shape.name for shape in figure.layout.shapes if shape.line.dash == "dot"]
    dotted += [
        trace.name
        for trace in figure.select_traces({"type": "scatter"})
        if trace.line.dash == "dot" and not (legend and trace.showlegend is not False)
    ]
    looks = {"dotted": "; ".join(dict.fromkeys(dotted))} | (figure.layout.meta or {})
    return " ".join(f"{look.capitalize()}: {means}." for look, means in looks.items() if means)


def marks_meta(symbols: Iterable[str]) -> dict[str, str]:
    """What filled and hollow marks of a difference mean, as far as they are drawn."""
    hollow = {symbol.endswith("-open") for symbol in symbols}
    filled = {"filled": "more than chance (corrected p below 0.05)"} if False in hollow else {}
    return filled | ({"hollow": "could be chance"} if True in hollow else {})


def error_bars(table: pd.DataFrame, column: str) -> dict:
    """Around the values of a column, from those of `low` to those of `high`."""
    above, below = table["high"] - table[column], table[column] - table["low"]
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1.5}
