"""Plotly figures, by what they show: DataFrames in, Figure out."""

from mmctr.report.figures import (
    attention,
    backtest,
    challenge,
    comparison,
    data,
    embeddings,
    new_items,
    search,
    style,
    training,
)

__all__ = [
    "attention",
    "backtest",
    "challenge",
    "comparison",
    "data",
    "embeddings",
    "new_items",
    "search",
    "style",
    "training",
]
