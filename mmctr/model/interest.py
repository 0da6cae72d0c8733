"""A user's interest in the target: the attention that a configuration asks for, and its fields."""

import torch
from torch import Tensor, nn

from mmctr.model.attention import Histories, MLPTargetAttention, MultiHeadTargetAttention
from mmctr.model.config import DINConfig
from mmctr.model.rivals import (
    CrossAttention,
    InvertedTransformerInterest,
    ReLUTargetAttention,
    TransformerInterest,
)

Widths = dict[str, int]  # of fields, by name
CROSS_HEADS = 4  # of cross-attention layers, as published


def interest(config: DINConfig, widths: Widths) -> tuple[nn.Module, Widths]:
    """What looks at a history, and the fields that it gives; widths: of the fields of a click."""
    width, heads = sum(widths.values()), config.heads
    dropout = config.attention_dropout
    if config.attention == "dot":
        max_age = config.max_history if config.recency else 0
        dim = config.embedding_dim
        attention = MultiHeadTargetAttention(width, heads, config.head_dim, dim, max_age)
        fields = {f"interest {head + 1}": dim for head in range(heads)}
    elif config.attention == "mlp":
        attention = MLPTargetAttention(width, heads, config.attention_hidden, dropout)
        fields = {
            f"interest {head + 1}: {name}": own
            for head in range(heads)
            for name, own in widths.items()
        }
    elif config.attention == "relu":
        attention = ReLUTargetAttention(width, heads)
        fields = {f"interest: {name}": own for name, own in widths.items()}
    else:
        sizes = {
            "layers": config.attention_layers,
            "heads": heads,
            "feed_forward": config.attention_hidden[0],
            "dropout": dropout,
            "last": config.last_outputs,
        }
        if config.inverted_mask:
            attention = InvertedTransformerInterest(width, config.max_history, **sizes)
        else:
            attention = TransformerInterest(width, **sizes)
        slots = [f"interest of click {age}" for age in range(config.last_outputs, 0, -1)]
        fields = dict.fromkeys([*slots, "interest, maximum"], 2 * width)
    if not config.cross_attention:
        return attention, fields
    cross = CrossAttention(width, config.cross_attention, CROSS_HEADS, dropout)
    fields |= {f"interest crossed: {name}": own for name, own in widths.items()}
    return Beside(attention, cross), fields


class Beside(nn.Module):
    """A target attention and cross-attention layers, their interest side by side."""

    def __init__(self, attention: nn.Module, cross: CrossAttention) -> None:
        super().__init__()
        self.attention, self.cross = attention, cross

    def weights(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Weights of the target attention, [clicks, heads]."""
        return self.attention.weights(targets, table, histories)

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Interest vectors [n, width of both]; arguments as for multi-head attention."""
        parts = [attend(targets, table, histories) for attend in (self.attention, self.cross)]
        return torch.cat([part.to(parts[0].dtype) for part in parts], dim=1)

    def as_targets(self, items: Tensor) -> Tensor:
        """Item vectors as they are."""
        return items

    as_clicks = as_targets

    def of_one_history(self, targets: Tensor, clicks: Tensor) -> Tensor:
        """Interest vectors of n targets that share these clicks, the latest last."""
        return self.forward(targets, clicks, Histories.one(clicks))
