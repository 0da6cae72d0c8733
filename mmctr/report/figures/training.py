"""Figures of one run: how it was trained and how well it predicts."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmctr.report.figures import style


def learning_curve(history: pd.DataFrame, strategy: str) -> go.Figure:
    """Loss and valid AUC by epoch, the best validation marked. Columns as in Run.history."""
    figure = make_subplots(1, 2, horizontal_spacing=0.2)
    epoch, color = history["epoch"], style.strategy_color(strategy)
    left, right = {"row": 1, "col": 1}, {"row": 1, "col": 2}
    figure.add_scatter(
        x=epoch, y=history["train_loss"], name="train", line_color=style.QUIET, **left
    )
    figure.add_scatter(x=epoch, y=history["logloss"], name="valid", line_color=color, **left)
    figure.add_scatter(x=epoch, y=history["auc"], showlegend=False, line_color=color, **right)
    best = history.loc[[history["auc"].idxmax()]]
    star = {"color": color, "size": 11, "symbol": "star"}
    figure.add_scatter(
        x=best["epoch"], y=best["auc"], mode="markers", name="best (kept)", marker=star, **right
    )
    figure.update_xaxes(title_text="Epoch")
    figure.update_yaxes(title_text="Logloss (nats)", **left)
    figure.update_yaxes(title_text="Valid AUC", **right)
    return figure.update_layout(template="mmctr")


def time_split(seconds: dict[str, float]) -> go.Figure:
    """Where the time of training went, in the order of a step; the longest part stands out."""
    shares = pd.Series(seconds) / sum(seconds.values())
    longest = shares.idxmax()
    figure = style.new_figure("Share of the time (%)", "")
    figure.add_bar(
        x=100 * shares,
        y=shares.index,
        orientation="h",
        marker_color=[style.MAIN if part == longest else style.QUIET for part in shares.index],
        text=[f"{share:.0%} ({seconds[part]:,.1f} s)" for part, share in shares.items()],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_yaxes(autorange="reversed", ticksuffix="  ")
    return figure.update_layout(height=95 + 30 * len(shares), bargap=0.35, margin_t=15, margin_r=90)


def calibration(tables: dict[str, pd.DataFrame], strategy: str, rate: str) -> go.Figure:
    """Observed against predicted rate, a plot a table. Columns: rows, predicted, observed.

    tables: by what their predictions are. rate: what the observed one is called.
    """
    titles = list(tables) if len(tables) > 1 else None
    figure = make_subplots(1, len(tables), horizontal_spacing=0.2, subplot_titles=titles)
    for number, table in enumerate(tables.values(), start=1):
        place, first = {"row": 1, "col": number}, number == 1
        top = float(table[["predicted", "observed"]].max().max()) * 1.05
        figure.add_scatter(
            x=[0, top],
            y=[0, top],
            mode="lines",
            name="perfect",
            line=style.DOTTED,
            showlegend=first,
            **place,
        )
        figure.add_scatter(
            x=table["predicted"],
            y=table["observed"],
            mode="lines+markers",
            name=f"model, {style.as_text(strategy)}",
            line_color=style.strategy_color(strategy),
            text=table["rows"].map("{:,} rows".format),
            showlegend=first,
            **place,
        )
    figure.update_xaxes(
        title_text="Predicted<br>probability" if titles else "Predicted probability"
    )
    figure.update_yaxes(title_text=f"Observed {rate}", col=1)
    return figure.update_layout(template="mmctr", legend_y=1.08 if titles else 1.02)


def auc_by_group(table: pd.DataFrame, group_title: str) -> go.Figure:
    """AUC with interval by group, one series for each system. Columns: group, auc, low, high,
    rows, system."""
    figure = make_subplots(1, 1)
    rows = table.groupby("group", sort=False)["rows"].first()
    add_groups(figure, table, [f"{group}<br>{count:,}" for group, count in rows.items()])
    # Two lines, as the labels have.
    figure.update_xaxes(title_text=f"{group_title}<br>Rows")
    figure.update_yaxes(title_text="AUC (0.5 is chance)")
    return figure.update_layout(template="mmctr")


def add_groups(
    figure: go.Figure, table: pd.DataFrame, labels: list[str], row: int = 1, col: int = 1
) -> None:
    """Draw AUC with interval by group into a plot of a figure; labels: of the groups in order."""
    place = {group: number for number, group in enumerate(table["group"].drop_duplicates())}
    systems = list(table["system"].unique())
    symbols = style.symbols(systems)
    for number, system in enumerate(systems):
        part = table[table["system"] == system]
        # Side by side, or else the intervals hide each other.
        shift = 0.5 * ((number + 0.5) / len(systems) - 0.5)
        figure.add_scatter(
            x=[place[group] + shift for group in part["group"]],
            y=part["auc"],
            error_y=style.error_bars(part, "auc"),
            mode="lines+markers",
            name=style.as_text(system),
            legendgroup=system,
            showlegend=row == col == 1,
            line={"color": style.strategy_color(system), "width": 1},
            marker={"size": 8, "symbol": symbols[system]},
            customdata=part["group"].astype(str),
            hovertemplate="%{customdata}: AUC %{y:.4f}",
            row=row,
            col=col,
        )
    figure.add_hline(0.5, line=style.DOTTED, name="chance", row=row, col=col)
    ticks = {"tickvals": list(place.values()), "ticktext": labels, "zeroline": False}
    figure.update_xaxes(**ticks, row=row, col=col)
