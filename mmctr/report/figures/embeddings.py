"""Figures of item embeddings."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmctr.report.figures.style import (
    DOTTED,
    PALETTE,
    QUIET,
    as_text,
    error_bars,
    log_ticks,
    new_figure,
    strategy_color,
)

OTHERS = "none of these"


def explained_variance(curves: dict[str, dict[str, np.ndarray]]) -> go.Figure:
    """Cumulated explained variance by number of components, a line for each PCA of a strategy."""
    figure = new_figure("Principal components kept", "Variance explained (%)")
    dashes = {"text": "dot", "image": "dash", "joint": "solid"}
    for strategy, blocks in curves.items():
        for block, share in blocks.items():
            figure.add_scatter(
                x=np.arange(1, len(share) + 1),
                y=100 * share,
                name=f"{strategy} {block}",
                line={"color": strategy_color(strategy), "dash": dashes.get(block, "solid")},
            )
    return figure.update_yaxes(range=[0, 102])


def item_maps(maps: dict[str, pd.DataFrame], notes: dict[str, str] | None = None) -> go.Figure:
    """2-D maps of items, one a strategy. Columns: x, y, tag (None: none of those shown), title.

    And item if clicks are to tell it, and id, the items' own, if hovering is. notes: beside the
    names of the strategies.
    """
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    titles = [f"{name}: {notes[name]}" if notes else name for name in maps]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0.07
    )
    for place, table in enumerate(maps.values()):
        # No name of a tag is empty, so that no tag, whatever its name, is taken for the others.
        by_tag = table.assign(tag=table["tag"].fillna("").astype(str)).groupby("tag")
        by_tag = sorted(by_tag, key=lambda group: (not group[0], group[0]))
        for number, (tag, part) in enumerate(by_tag):
            text = part["title"].map(as_text)
            if "id" in part:
                text += "<br>item " + part["id"].map(as_text)
            figure.add_scatter(
                x=part["x"],
                y=part["y"],
                mode="markers",
                name=as_text(tag or OTHERS),
                legendgroup=tag,
                showlegend=place == 0,
                marker={
                    "size": 4,
                    "color": PALETTE[number % 6] if tag else QUIET,
                    "symbol": number // 6,
                    "opacity": 0.85 if tag else 0.25,
                },
                text=text,
                customdata=part.get("item"),
                hovertemplate="%{text}<extra>tag %{fullData.name}</extra>",
                row=place // columns + 1,
                col=place % columns + 1,
            )
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False)
    legend = {"y": -0.02, "yanchor": "top", "itemsizing": "constant"}
    return figure.update_layout(template="mmctr", height=420 * rows, legend=legend)


def co_clicks(table: pd.DataFrame) -> go.Figure:
    """One bar a strategy, from the half that chance reaches: columns strategy, mean, low, high."""
    figure = new_figure("Strategy", "The next click is<br>the more similar one (%)")
    for line in table.to_dict("records"):
        name, percent = line["strategy"], {key: 100 * line[key] for key in ("mean", "low", "high")}
        figure.add_bar(
            x=[name],
            y=[percent["mean"] - 50],
            base=50,
            name=name,
            marker_color=strategy_color(name),
            error_y=error_bars(pd.DataFrame([percent]), "mean"),
            hovertemplate=f"{as_text(name)}: {percent['mean']:.1f}%<extra></extra>",
        )
    figure.add_hline(y=50, line=DOTTED, name="chance")
    return figure.update_layout(showlegend=False)


def next_click_hits(table: pd.DataFrame) -> go.Figure:
    """Share of clicks among the nearest of what was clicked before, a bar a strategy and group.

    Columns: strategy, group, clicks, hits, low, high.
    """
    figure = new_figure("Clicked item, by its clicks in train", "Among the 20 nearest (%)")
    table = table[table["clicks"] > 0]
    counts = table.groupby("group", sort=False)["clicks"].first()
    labels = {group: f"{group}<br>{count:,} clicks" for group, count in counts.items()}
    for name, part in table.groupby("strategy", sort=False):
        percent = part.assign(**{column: 100 * part[column] for column in ("hits", "low", "high")})
        figure.add_bar(
            x=part["group"].map(labels),
            y=percent["hits"],
            error_y=error_bars(percent, "hits"),
            name=as_text(name),
            marker_color=strategy_color(name),
            hovertemplate="%{y:.1f}%<extra>" + as_text(name) + "</extra>",
        )
    return figure.update_layout(barmode="group")


def semantic_ids(table: pd.DataFrame) -> go.Figure:
    """How evenly the ids of each level are used: items that have an id, the largest first.

    Columns: level (from 1), rank (of the id among its level's, from 1), items.
    """
    figure = new_figure("Ids of the level, by their items", "Items that have the id")
    for level, part in table.groupby("level"):
        figure.add_scatter(
            x=part["rank"],
            y=part["items"],
            mode="lines",
            name=f"level {level}",
            line={"color": PALETTE[level - 1]},
        )
    figure.update_xaxes(type="log", **log_ticks(table["rank"]))
    return figure.update_yaxes(type="log", **log_ticks(table["items"]))
