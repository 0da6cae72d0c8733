"""Figures of runs side by side."""

import pandas as pd
import plotly.graph_objects as go

from mmctr.report.figures import style


def strategies(table: pd.DataFrame, references: dict[str, float]) -> go.Figure:
    """Valid AUC of every run with interval. Columns: strategy, seed, auc, low, high."""
    figure = style.new_figure("Strategy, a mark a seed", "Valid AUC")
    for strategy, part in table.groupby("strategy", sort=False):
        figure.add_scatter(
            x=[[style.as_text(strategy)] * len(part), part["seed"].map("seed {}".format)],
            y=part["auc"],
            error_y=style.error_bars(part, "auc"),
            mode="markers",
            name=style.as_text(strategy),
            marker={"size": 10, "color": style.strategy_color(strategy)},
        )
    return style.add_references(figure, references).update_layout(showlegend=False, margin_r=85)


def auc_against_time(table: pd.DataFrame) -> go.Figure:
    """Valid AUC of every run beside its seconds. Columns: strategy, seed, auc, seconds."""
    figure = style.new_figure("Fusion and training (seconds)", "Valid AUC")
    symbols = style.symbols(table["strategy"])
    for strategy, part in table.groupby("strategy", sort=False):
        figure.add_scatter(
            x=part["seconds"],
            y=part["auc"],
            mode="markers",
            name=style.as_text(strategy),
            marker={"size": 12, "color": style.strategy_color(strategy), "opacity": 0.85}
            | {"symbol": symbols[strategy]},
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
    figure = style.new_figure(f"AUC minus that<br>of {style.as_text(baseline)}", "")
    figure.add_vline(0, line=style.DOTTED, name="no difference")
    for line in table.iloc[::-1].to_dict("records"):
        part = pd.DataFrame([line])
        symbol = "circle" if line["p_holm"] < 0.05 else "circle-open"
        color = line.get("color") or style.strategy_color(line["strategy"])
        figure.add_scatter(
            x=part["difference"],
            y=part["strategy"].map(style.as_text),
            error_x=style.error_bars(part, "difference"),
            mode="markers",
            marker={"size": 11, "symbol": symbol, "color": color},
            hovertemplate=f"%{{x:.4f}}, corrected p = {line['p_holm']:.3f}<extra></extra>",
        )
    figure.update_yaxes(ticksuffix="  ", range=[-0.6, len(table) - 0.4])
    meta = style.marks_meta(trace.marker.symbol for trace in figure.data)
    return figure.update_layout(showlegend=False, height=130 + 45 * len(table), meta=meta)
