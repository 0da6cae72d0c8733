"""Plotly figures: DataFrames in, Figure out. Colours are fixed per strategy and colour-blind safe
(Okabe and Ito, 2008); backgrounds are transparent, so that light and dark pages both work."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from plotly.subplots import make_subplots

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C")
STRATEGY_COLORS = dict(zip(("v1", "v2", "v3", "v4", "ids"), PALETTE, strict=False))
PROVIDED_COLORS = (PALETTE[5], "#999933", "#9A6FD0", "#B5651D")  # of ready-made columns, in order
MAIN, SECOND, QUIET = PALETTE[0], PALETTE[3], PALETTE[6]
STATE_COLORS = {"finished": MAIN, "pruned": QUIET, "diverged": PALETTE[1]}  # of a search's trials
GRID = "rgba(128, 128, 128, 0.25)"

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


def strategy_color(strategy: str) -> str:
    """The colour of a strategy, or of the oracle, the same in every figure."""
    if strategy == "oracle":
        return QUIET
    if strategy not in STRATEGY_COLORS:
        return PROVIDED_COLORS[sum(map(ord, strategy)) % len(PROVIDED_COLORS)]
    return STRATEGY_COLORS[strategy]


def assign_colors(strategies: Iterable[str]) -> None:
    """Give each strategy that has no colour of its own the next one of PROVIDED_COLORS.

    Named in the same order, as fusion.available_strategies does, they get the same colours in
    every notebook on a dataset.
    """
    others = [name for name in strategies if name not in ("v1", "v2", "v3", "v4", "ids")]
    for number, name in enumerate(others):
        STRATEGY_COLORS[name] = PROVIDED_COLORS[number % len(PROVIDED_COLORS)]


def history_lengths(lengths: dict[str, np.ndarray]) -> go.Figure:
    """Share of rows by history length, a line a split."""
    figure = _figure("History length (clicks)", "Rows with at least as many clicks (%)")
    for split, values in lengths.items():
        counts = np.bincount(values)
        share = 100 * (1 - (np.cumsum(counts) - counts) / len(values))
        figure.add_scatter(x=np.arange(len(counts)), y=share, name=split, mode="lines")
    return figure


def popularity(clicks: np.ndarray) -> go.Figure:
    """Train clicks of each item by its popularity rank, on logarithmic axes."""
    ordered = np.sort(clicks)[::-1]
    ordered = ordered[ordered > 0]
    # A few hundred points, evenly spread over the logarithm, draw the same line as all of them.
    ranks = np.unique(np.geomspace(1, max(len(ordered), 1), 300).astype(int))[: len(ordered)]
    figure = _figure("Popularity rank of the item (log)", "Train clicks (log)")
    figure.add_scatter(x=ranks, y=ordered[ranks - 1], mode="lines", line_color=MAIN)
    return figure.update_xaxes(type="log", dtick=1).update_yaxes(type="log", dtick=1)


def bars(table: pd.DataFrame, x: str, y: str, *, x_title: str, y_title: str) -> go.Figure:
    """Plain bars of one column over another; columns `low` and `high`, if there, are intervals."""
    figure = _figure(x_title, y_title)
    error = None
    if {"low", "high"} <= set(table):
        error = _interval(table[y], table["low"], table["high"])
    figure.add_bar(x=table[x].astype(str), y=table[y], error_y=error, marker_color=MAIN)
    return figure.update_xaxes(type="category")


def explained_variance(curves: dict[str, dict[str, np.ndarray]]) -> go.Figure:
    """Cumulated explained variance by number of components, a line for each PCA of a strategy."""
    figure = _figure("Principal components kept", "Variance explained (%)")
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


def item_maps(maps: dict[str, pd.DataFrame]) -> go.Figure:
    """2-D maps of items, one a strategy. Columns: x, y, tag, title; item if clicks are to tell."""
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=list(maps), horizontal_spacing=0.03, vertical_spacing=0.07
    )
    for place, table in enumerate(maps.values()):
        for number, (tag, part) in enumerate(sorted(table.groupby("tag"), key=_other_last)):
            is_other = tag == "other"
            figure.add_scatter(
                x=part["x"],
                y=part["y"],
                mode="markers",
                name=str(tag),
                legendgroup=str(tag),
                showlegend=place == 0,
                marker={
                    "size": 4,
                    "color": QUIET if is_other else PALETTE[number % 6],
                    "symbol": number // 6,
                    "opacity": 0.25 if is_other else 0.85,
                },
                text=part["title"].map(as_text),
                customdata=part.get("item"),
                hovertemplate="%{text}<extra>tag " + as_text(str(tag)) + "</extra>",
                row=place // columns + 1,
                col=place % columns + 1,
            )
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False)
    legend = {"y": -0.02, "yanchor": "top", "itemsizing": "constant"}
    return figure.update_layout(template="mmctr", height=420 * rows, legend=legend)


def by_strategy(values: dict[str, float], title: str, *, chance: float) -> go.Figure:
    """One bar a strategy, from the value that chance reaches."""
    figure = _figure("Strategy", title)
    for name, value in values.items():
        figure.add_bar(
            x=[name],
            y=[value - chance],
            base=chance,
            name=name,
            marker_color=strategy_color(name),
            text=f"{value:.4f}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"{as_text(name)}: {value:.4f}<extra></extra>",
        )
    return figure.update_layout(showlegend=False)


def learning_curve(history: pd.DataFrame, strategy: str) -> go.Figure:
    """Loss and valid AUC by epoch, the best validation marked. Columns as in Run.history."""
    figure = make_subplots(1, 2, horizontal_spacing=0.2)
    losses = {"train_loss": ("train", QUIET), "logloss": ("valid", strategy_color(strategy))}
    for column, (name, color) in losses.items():
        figure.add_scatter(
            x=history["epoch"], y=history[column], name=name, line_color=color, row=1, col=1
        )
    color = strategy_color(strategy)
    figure.add_scatter(
        x=history["epoch"], y=history["auc"], line_color=color, showlegend=False, row=1, col=2
    )
    best = history.loc[history["auc"].idxmax()]
    figure.add_scatter(
        x=[best["epoch"]],
        y=[best["auc"]],
        mode="markers",
        name="best (kept)",
        marker={"color": color, "size": 11, "symbol": "star"},
        row=1,
        col=2,
    )
    figure.update_xaxes(title_text="Epoch")
    figure.update_yaxes(title_text="Logloss (nats)", row=1, col=1)
    figure.update_yaxes(title_text="Valid AUC", row=1, col=2)
    return figure.update_layout(template="mmctr")


def time_split(seconds: dict[str, float]) -> go.Figure:
    """Where the time of training went, in the order of a step; the longest part stands out."""
    shares = pd.Series(seconds) / sum(seconds.values())
    longest = shares.idxmax()
    figure = _figure("Share of the time (%)", "")
    figure.add_bar(
        x=100 * shares,
        y=shares.index,
        orientation="h",
        marker_color=[MAIN if part == longest else QUIET for part in shares.index],
        text=[f"{share:.0%} ({seconds[part]:,.1f} s)" for part, share in shares.items()],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_yaxes(autorange="reversed", ticksuffix="  ")
    return figure.update_layout(height=95 + 30 * len(shares), bargap=0.35, margin_t=15, margin_r=90)


def calibration(table: pd.DataFrame, strategy: str) -> go.Figure:
    """Observed against predicted click rate. Columns: rows, predicted, observed."""
    figure = _figure("Predicted click probability", "Observed click rate")
    top = float(table[["predicted", "observed"]].max().max()) * 1.05
    figure.add_scatter(
        x=[0, top], y=[0, top], mode="lines", name="perfect", line={"color": QUIET, "dash": "dot"}
    )
    figure.add_scatter(
        x=table["predicted"],
        y=table["observed"],
        mode="lines+markers",
        name=f"model, {strategy}",
        line_color=strategy_color(strategy),
        text=table["rows"].map("{:,} rows".format),
    )
    return figure


def auc_by_group(table: pd.DataFrame, group_title: str) -> go.Figure:
    """AUC with interval by group, one series for each system. Columns: group, auc, low, high,
    rows, system."""
    figure = _figure(group_title, "AUC (0.5 is chance)")
    rows = table.drop_duplicates("group").set_index("group")["rows"]
    place = {group: number for number, group in enumerate(rows.index)}
    systems = list(table["system"].unique())
    for number, system in enumerate(systems):
        part = table[table["system"] == system]
        # Side by side, or else the intervals hide each other.
        shift = 0.5 * ((number + 0.5) / len(systems) - 0.5)
        figure.add_scatter(
            x=[place[group] + shift for group in part["group"]],
            y=part["auc"],
            error_y=_interval(part["auc"], part["low"], part["high"]),
            mode="lines+markers",
            name=as_text(system),
            line={"color": strategy_color(system), "width": 1},
            marker_size=8,
            customdata=part["group"].astype(str),
            hovertemplate="%{customdata}: AUC %{y:.4f}",
        )
    figure.add_hline(0.5, line={"color": QUIET, "dash": "dot"})
    labels = [f"{group}<br>{count:,} rows" for group, count in rows.items()]
    return figure.update_xaxes(tickvals=list(place.values()), ticktext=labels, zeroline=False)


def attention_heads(table: pd.DataFrame, titles: np.ndarray) -> go.Figure:
    """Attention of every head over one row's history. Columns: age, item, head, weight."""
    weights = table.pivot(index="head", columns="age", values="weight").sort_index(
        axis=1, ascending=False
    )
    items = table.drop_duplicates("age").set_index("age")["item"][weights.columns]
    hover = np.tile([as_text(titles[item]) for item in items], (len(weights), 1))
    figure = _figure("Click of the history (1 = the latest)", "Head")
    figure.add_heatmap(
        z=weights.to_numpy(),
        x=weights.columns.astype(str),
        y=weights.index.astype(str),
        text=hover,
        colorscale="Viridis",
        colorbar={"title": {"text": "Weight"}},
        hovertemplate="%{text}<br>head %{y}: %{z:.3f}<extra></extra>",
    )
    figure.update_xaxes(type="category", nticks=20).update_yaxes(type="category")
    return figure.update_layout(height=100 + 32 * len(weights), margin_t=15)


def lines_by_head(table: pd.DataFrame, x: str, y: str, *, x_title: str, y_title: str) -> go.Figure:
    """One line a head. Columns: head, x and y."""
    figure = _figure(x_title, y_title)
    for head, part in table.groupby("head"):
        figure.add_scatter(x=part[x], y=part[y], name=f"head {head}", mode="lines+markers")
    return figure


def field_weights(table: pd.DataFrame) -> go.Figure:
    """SENet's weights: mean and the middle 90% of rows. Columns: field, mean, low, high."""
    return _by_field(table, "SENet weight (0 to 1)")


def importance(table: pd.DataFrame) -> go.Figure:
    """AUC lost by shuffling a field: mean, least and most. Columns: field, mean, low, high."""
    figure = _by_field(table, "Valid AUC lost when the field is shuffled")
    return figure.add_vline(0, line={"color": QUIET, "dash": "dot"})


def histogram(values: np.ndarray, x_title: str, *, low: float, high: float) -> go.Figure:
    """Share of rows in 20 equal bins from low to high; a line at the mean."""
    counts, edges = np.histogram(values, bins=20, range=(low, high))
    figure = _figure(x_title, "Rows (%)")
    share = 100 * counts / max(counts.sum(), 1)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    figure.add_bar(x=middle, y=share, width=width * 0.95, marker_color=MAIN)
    mean = float(np.mean(values))
    figure.add_vline(
        mean,
        line={"color": SECOND, "dash": "dot"},
        annotation={"text": f"mean {mean:.2f}", "y": 1, "yanchor": "bottom", "xanchor": "center"},
    )
    return figure.update_layout(height=320)


def distributions(columns: dict[str, np.ndarray], x_title: str) -> go.Figure:
    """Box plots side by side: box = middle half, whiskers = middle 90%."""
    figure = _figure(x_title, "")
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


def strategies(table: pd.DataFrame, references: dict[str, float]) -> go.Figure:
    """Valid AUC of every run with interval. Columns: strategy, seed, auc, low, high."""
    figure = _figure("Strategy, a mark a seed", "Valid AUC")
    for strategy, part in table.groupby("strategy", sort=False):
        figure.add_scatter(
            x=[[as_text(strategy)] * len(part), part["seed"].map("seed {}".format)],
            y=part["auc"],
            error_y=_interval(part["auc"], part["low"], part["high"]),
            mode="markers",
            name=as_text(strategy),
            marker={"size": 10, "color": strategy_color(strategy)},
        )
    for name, value in references.items():
        figure.add_hline(value, line={"color": QUIET, "dash": "dot"})
        # Beside the plot: within it, marks would hide the words.
        text = f"{name}<br>{value:.4f}"
        place = {"x": 1.01, "xref": "paper", "xanchor": "left", "align": "left"}
        figure.add_annotation(y=value, text=text, showarrow=False, **place)
    return figure.update_layout(showlegend=False, margin_r=85)


def auc_against_time(table: pd.DataFrame) -> go.Figure:
    """Valid AUC of every run beside its seconds. Columns: strategy, seed, auc, seconds."""
    figure = _figure("Fusion and training (seconds)", "Valid AUC")
    for strategy, part in table.groupby("strategy", sort=False):
        figure.add_scatter(
            x=part["seconds"],
            y=part["auc"],
            mode="markers",
            name=as_text(strategy),
            marker={"size": 12, "color": strategy_color(strategy), "opacity": 0.85},
            text=part["seed"].map("seed {}".format),
            hovertemplate="%{text}: AUC %{y:.4f} in %{x:.1f} s",
        )
    # From zero, so that a distance on the axis is a difference in cost.
    figure.update_xaxes(rangemode="tozero").update_yaxes(tickformat=".4f")
    return figure.update_layout(showlegend=True)


def differences(table: pd.DataFrame, baseline: str) -> go.Figure:
    """Paired differences of AUC with interval; a hollow mark where the difference could be chance.

    Columns: strategy, difference, low, high, p_holm; color where the names are no strategies.
    """
    figure = _figure(f"AUC minus that of {as_text(baseline)}", "")
    figure.add_vline(0, line={"color": QUIET, "dash": "dot"})
    for line in table.iloc[::-1].to_dict("records"):
        part = pd.DataFrame([line])
        symbol = "circle" if line["p_holm"] < 0.05 else "circle-open"
        color = line.get("color") or strategy_color(line["strategy"])
        figure.add_scatter(
            x=part["difference"],
            y=[as_text(line["strategy"])],
            error_x=_interval(part["difference"], part["low"], part["high"]),
            mode="markers",
            marker={"size": 11, "symbol": symbol, "color": color},
            hovertemplate=f"%{{x:.4f}}, corrected p = {line['p_holm']:.3f}<extra></extra>",
        )
    figure.update_yaxes(ticksuffix="  ", range=[-0.6, len(table) - 0.4])
    return figure.update_layout(showlegend=False, height=110 + 45 * len(table))


def search_history(trials: pd.DataFrame, references: dict[str, float]) -> go.Figure:
    """Valid AUC of every trial and the best so far. Columns: trial, state, auc, best."""
    figure = _figure("Trial", "Valid AUC")
    _add_trials(figure, trials, "trial")
    figure.add_scatter(
        x=trials["trial"],
        y=trials["best"],
        name="best so far",
        mode="lines",
        line={"color": SECOND, "shape": "hv"},
    )
    for name, value in references.items():
        figure.add_hline(value, line={"color": QUIET, "dash": "dot"})
        # Beside the plot: trials are often as good as a reference and would be written over.
        at = {"x": 1, "xref": "paper", "xanchor": "left", "y": value, "showarrow": False}
        figure.add_annotation(text=f" {name}<br> {value:.4f}", align="left", **at)
    return figure.update_yaxes(tickformat=".2f").update_layout(margin_r=90)


def search_curves(curves: pd.DataFrame, best: int) -> go.Figure:
    """Valid AUC of every trial while it trains, the best one marked. Columns: trial, state,
    validation, auc."""
    figure = _figure("Validation", "Valid AUC")
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

    Columns: trial, state, auc and the parameters; lists are shown as text, in order of their sum.
    """
    columns = min(3, len(parameters))
    rows = -(-len(parameters) // columns)
    figure = make_subplots(
        rows, columns, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.34 / rows
    )
    for place, (name, is_log) in enumerate(parameters.items()):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        values, axis = trials[name], {"title": name, "type": "log" if is_log else "linear"}
        if is_log:
            axis |= {"dtick": 1, "exponentformat": "power"}
        elif pd.api.types.is_integer_dtype(values) or values.map(type).eq(list).any():
            ordered = sorted(map(_as_tuple, values))
            values = values.map(lambda value: ", ".join(map(str, _as_tuple(value))))
            names = dict.fromkeys(", ".join(map(str, value)) for value in ordered)
            axis |= {"type": "category", "categoryorder": "array", "categoryarray": list(names)}
        _add_trials(figure, trials.assign(**{name: values}), name, legend=not place, **at)
        figure.update_xaxes(axis, **at)
    figure.update_yaxes(title_text="Valid AUC", col=1).update_yaxes(tickformat=".2f")
    return figure.update_layout(template="mmctr", height=100 + 250 * rows)


def as_text(title: str) -> str:
    """A title that plotly shows as it is: angle brackets would be read as HTML."""
    return str(title).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


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


def _as_tuple(value: object) -> tuple:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _figure(x_title: str, y_title: str) -> go.Figure:
    layout = {"template": "mmctr", "xaxis_title": x_title, "yaxis_title": y_title}
    return go.Figure(layout=layout)


def _by_field(table: pd.DataFrame, x_title: str) -> go.Figure:
    table = table.iloc[::-1]
    figure = _figure(x_title, "")
    figure.add_scatter(
        x=table["mean"],
        y=table["field"],
        error_x=_interval(table["mean"], table["low"], table["high"]),
        mode="markers",
        marker={"size": 9, "color": MAIN},
    )
    return figure.update_layout(height=120 + 28 * len(table))


def _interval(value: pd.Series, low: pd.Series, high: pd.Series) -> dict:
    return {"type": "data", "array": high - value, "arrayminus": value - low, "thickness": 1.5}


def _other_last(group: tuple[str, pd.DataFrame]) -> tuple[bool, str]:
    return group[0] == "other", str(group[0])
