"""Figures of a search for parameters."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmctr.report.figures.style import (
    MAIN,
    PALETTE,
    QUIET,
    SECOND,
    add_references,
    log_ticks,
    new_figure,
)

STATE_COLORS = {"finished": MAIN, "pruned": QUIET, "diverged": PALETTE[1]}  # of a search's trials


def search_history(trials: pd.DataFrame, references: dict[str, float]) -> go.Figure:
    """Valid AUC of every trial and the best so far. Columns: trial, state, auc, best."""
    figure = new_figure("Trial", "Valid AUC")
    _add_trials(figure, trials, "trial")
    figure.add_scatter(
        x=trials["trial"],
        y=trials["best"],
        name="best so far",
        mode="lines",
        line={"color": SECOND, "shape": "hv"},
        zorder=-1,
    )
    return (
        add_references(figure, references).update_yaxes(tickformat=".2f").update_layout(margin_r=90)
    )


def search_curves(curves: pd.DataFrame, best: int) -> go.Figure:
    """Valid AUC of every trial while it trains, the best one marked. Columns: trial, state,
    validation, auc."""
    figure = new_figure("Validation", "Valid AUC")
    for trial, part in curves.groupby("trial"):
        state = part["state"].iloc[0]
        kind = f"trial {trial}, the best" if trial == best else state
        color = SECOND if trial == best else STATE_COLORS[state]
        figure.add_scatter(
            x=part["validation"],
            y=part["auc"],
            mode="lines+markers",
            name=kind,
            legendgroup=kind,
            showlegend=not any(trace.name == kind for trace in figure.data),
            line={"color": color, "width": 3 if trial == best else 1},
            marker={"size": 8 if trial == best else 4},
            zorder=int(trial == best),
            hovertemplate=f"trial {trial}, {state}: %{{y:.4f}}<extra></extra>",
        )
    return figure.update_yaxes(tickformat=".2f")


def search_slices(trials: pd.DataFrame, parameters: dict[str, bool]) -> go.Figure:
    """Valid AUC of every trial over each parameter, a panel each, logarithmic where it says True.

    Columns: trial, state, auc and the parameters; whole numbers and lists are categories, in order.
    """
    columns = min(2, len(parameters))  # three do not fit a phone
    rows = -(-len(parameters) // columns)
    figure = make_subplots(
        rows, columns, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.34 / rows
    )
    for place, (name, is_log) in enumerate(parameters.items()):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        values, axis = trials[name], {"title": name, "type": "log" if is_log else "linear"}
        if is_log:
            axis |= log_ticks(values)
        elif pd.api.types.is_integer_dtype(values) or values.map(type).eq(list).any():
            names = list(dict.fromkeys(map(_as_words, sorted(values))))
            values = values.map(_as_words)
            axis |= {"type": "category", "categoryorder": "array", "categoryarray": names}
        _add_trials(figure, trials.assign(**{name: values}), name, legend=not place, **at)
        figure.update_xaxes(axis, **at)
    # Printed, panels are lower: a title far below its own would lie on the next one.
    figure.update_xaxes(title_standoff=6)
    figure.update_yaxes(title_text="Valid AUC", col=1).update_yaxes(tickformat=".2f")
    return figure.update_layout(template="mmctr", height=100 + 250 * rows)


def _add_trials(
    figure: go.Figure, trials: pd.DataFrame, x: str, *, legend: bool = True, **at: int
) -> None:
    """A mark a trial over a column, coloured by what became of it; those that have no AUC none."""
    for state, part in trials.dropna(subset="auc").groupby("state"):
        figure.add_scatter(
            x=part[x],
            y=part["auc"],
            mode="markers",
            name=state,
            legendgroup=state,
            showlegend=legend,
            marker={"size": 8, "color": STATE_COLORS[state], "opacity": 0.85},
            text=part["trial"].map("trial {}".format),
            hovertemplate="%{text}: AUC %{y:.4f}, %{x}",
            **at,
        )


def _as_words(value: object) -> str:
    return str(value).strip("[]")
