"""Plotly figures, by what they show: DataFrames in, Figure out."""

from mmctr.report.figures import (
    attention,
    backtest,
    comparison,
    data,
    embeddings,
    search,
    style,
    training,
)

__all__ = [
    "attention",
    "backtest",
    "comparison",
    "data",
    "embeddings",
    "search",
    "style",
    "training",
]
