"""Plotly figures, by what they show: DataFrames in, Figure out."""

from mmctr.report.figures import (
    attention,
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
    "comparison",
    "data",
    "embeddings",
    "new_items",
    "search",
    "style",
    "training",
]
