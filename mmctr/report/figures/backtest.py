"""Figures of a backtest: quality and cost over time, by how training began."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmctr.report.figures.style import DOTTED, MAIN, PALETTE, QUIET, SECOND, error_bars, new_figure

COLORS = {"cold start": MAIN, "warm start": SECOND, "not retrained": PALETTE[4]}
TIME = "First row of the window"
APART = 0.008  # of the time axis: intervals of one window would hide each other


def auc_over_time(table: pd.DataFrame) -> go.Figure:
    """AUC of each window with interval, a line a system. Columns: time, window, system, auc, low,
    high."""
    figure = new_figure(TIME, "AUC (0.5 is chance)")
    _add_systems(figure, table, "auc")
    return figure.update_yaxes(tickformat=".2f")


def auc_by_group_over_time(table: pd.DataFrame) -> go.Figure:
    """AUC of each window within groups of targets, a panel each. Columns: as of auc_over_time, and
    group."""
    groups = list(table["group"].unique())
    figure = make_subplots(
        len(groups), 1, shared_xaxes=True, vertical_spacing=0.07, subplot_titles=groups
    )
    for row, group in enumerate(groups, start=1):
        part = table[table["group"] == group]
        _add_systems(figure, part, "auc", legend=row == 1, row=row, col=1)
    figure.update_xaxes(title_text=TIME, row=len(groups)).update_yaxes(title_text="AUC")
    figure.update_layout(template="mmctr", height=120 + 220 * len(groups), legend_y=1.06)
    return figure.update_yaxes(tickformat=".2f")


def differences_over_time(table: pd.DataFrame) -> go.Figure:
    """AUC of each window minus that of the cold start, with interval. Columns: time, window,
    system, difference, low, high."""
    figure = new_figure(TIME, "AUC minus the cold start's")
    figure.add_hline(0, line=DOTTED, name="no difference")
    _add_systems(figure, table, "difference")
    return figure.update_yaxes(tickformat="+.3f")


def seconds_over_time(table: pd.DataFrame) -> go.Figure:
    """Seconds of training before each window. Columns: time, window, system, seconds, rows."""
    figure = new_figure(TIME, "Training (seconds)")
    for system, part in table.groupby("system", sort=False):
        figure.add_scatter(
            x=part["time"],
            y=part["seconds"],
            name=system,
            mode="lines+markers",
            line_color=COLORS[system],
            marker_size=9,
            text=part["rows"].map("{:,} rows".format),
            hovertemplate="%{x}: %{y:.1f} s for %{text}",
        )
    # From zero, so that a distance on the axis is a difference in cost.
    return figure.update_yaxes(rangemode="tozero").update_xaxes(type="date")


def _add_systems(
    figure: go.Figure, table: pd.DataFrame, column: str, *, legend: bool = True, **place: int
) -> None:
    """A line a system with intervals; of popularity, a reference, a dotted one without."""
    span = table["time"].max() - table["time"].min()
    for number, (system, part) in enumerate(table.groupby("system", sort=False)):
        learned = system in COLORS
        color = COLORS.get(system, QUIET)
        figure.add_scatter(
            x=part["time"] + APART * number * span,
            y=part[column],
            error_y=error_bars(part, column) if learned else None,
            mode="lines+markers" if learned else "lines",
            name=system,
            legendgroup=system,
            showlegend=legend,
            line={"color": color, "width": 1.5, "dash": "solid" if learned else "dot"},
            marker_size=8,
            customdata=part["window"],
            hovertemplate="window %{customdata}: %{y:.4f}",
            **place,
        )
    figure.update_xaxes(type="date", **place)
