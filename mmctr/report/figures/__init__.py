"""Plotly figures, by what they show: DataFrames in, Figure out."""

from mmctr.report.figures import (
    atlas,
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
    "atlas",
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
