"""The figure of the error atlas: a tile for each group of rows."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmctr.report.figures.style import as_text, new_figure

# Opaque, so that the words in a tile contrast with it whatever the page is like.
SCALE = [[0, "#E08A00"], [0.5, "#E9EAEC"], [1, "#4A9FD8"]]
MEASURES = {"auc": ("AUC", 1), "logloss": ("Logloss (nats)", -1)}  # 1: more is better
LONGEST = 26  # characters of a value's name
LINE = 25  # pixels


def tiles(table: pd.DataFrame, places: list[str] | None = None) -> go.Figure:
    """AUC and logloss of each tile, coloured by how much better or worse than all rows it is.

    Columns as of atlas.measured, whose first line is all rows. Bold: the interval does not hold the
    value of all rows. In brackets and without colour: too few clicks or negatives. places: ids of
    the elements of a page that a tile leads to.
    """
    by = table["by"].to_numpy()
    begins = by != np.append(by[:1], by[:-1])  # a kind of tiles, which a line names
    lines = np.arange(len(table)) + np.cumsum(begins)
    better = np.full((int(lines[-1]) + 1, len(MEASURES)), np.nan)
    shown, hover, leads = (np.full(better.shape, "", dtype=object) for _ in range(3))
    for column, (name, (title, sign)) in enumerate(MEASURES.items()):
        ahead = (sign * (table[name] - table[name][0])).where(~table["few"], 0).fillna(0)
        better[lines, column] = ahead / max(float(ahead.abs().max()), 1e-9)
        records = table.to_dict("records")
        shown[lines, column] = [_shown(line, name, table[name][0]) for line in records]
        hover[lines, column] = [_hover(line, title, name) for line in records]
        leads[lines, column] = places
    figure = new_figure("Within the tile", "")
    figure.add_heatmap(
        x=[title for title, _ in MEASURES.values()],
        y=np.arange(len(better)),
        z=better,
        text=shown,
        texttemplate="%{text}",
        textfont={"size": 12},
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        customdata=leads,
        colorscale=SCALE,
        zmin=-1,
        zmax=1,
        showscale=False,
        xgap=3,
        ygap=2,
    )
    heads = [f"<b>{as_text(name)}</b>" for name in by[begins]]
    names = [as_text(_short(value)) for value in table["value"]]
    ticks = {"tickvals": [*(lines[begins] - 1), *lines], "ticktext": [*heads, *names]}
    still = {"showgrid": False, "zeroline": False, "fixedrange": True}
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", **ticks, **still)
    figure.update_xaxes(side="top", **still)
    told = "".join(shown.flat)
    looks = {
        "blue": ("better than over all rows", bool((better > 0).any())),
        "orange": ("worse", bool((better < 0).any())),
        "bold": ("by more than the 95% interval (users resampled)", "<b>" in told),
        "in brackets": ("too few clicks or negatives to say much", "(" in told),
    }
    meta = {look: means for look, (means, drawn) in looks.items() if drawn}
    return figure.update_layout(height=90 + LINE * len(better), margin_t=60, margin_b=10, meta=meta)


def _shown(line: dict, name: str, of_all: float) -> str:
    """The value in a tile."""
    if np.isnan(line[name]):
        return "–"
    value = f"{line[name]:.3f}"
    if line["few"]:
        return f"({value})"
    apart = not line[f"{name}_low"] <= of_all <= line[f"{name}_high"]
    return f"<b>{value}</b>" if apart else value


def _hover(line: dict, title: str, name: str) -> str:
    counts = f"{line['rows']:,} rows, {line['clicks']:,} clicks"
    head = f"{as_text(line['by'])}: {as_text(line['value'])}<br>{counts}<br>"
    if np.isnan(line[name]):
        return f"{head}{title}: none, without a click and a negative"
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    return f"{head}{title}: {line[name]:.4f}<br>95% interval {low:.4f} to {high:.4f}"


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
