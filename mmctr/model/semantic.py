"""Semantic ids of items beside the dense item embedding that they are made of."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmctr.content.quantization import LEVELS, ResidualQuantizer
from mmctr.model.layers import SEMANTIC_IDS, FieldEmbedding

CODEWORDS = "codewords"  # how many there are, where ids stand beside the vectors
FITTED = ("sizes_", "codebooks_", "scales_", "counts_", "ids_")  # what codes are found by


class SemanticIds(nn.Module):
    """A field of an item's semantic ids: the codes of its content, a prefix an id, after v6.

    The quantizer goes with the weights, so that items that come later get the ids of items that
    look like them. Arguments: items, how many rows there are; width of the item embedding;
    codewords and ids, how many there are in all and by level (0, unknown, counted).
    """

    def __init__(
        self, items: int, width: int, codewords: int, ids: Sequence[int], dim: int
    ) -> None:
        super().__init__()
        levels, total = len(ids), sum(ids) - len(ids)
        self.register_buffer("codes", torch.zeros(items, levels, dtype=torch.int32))
        self.register_buffer("sizes_", torch.zeros(levels, dtype=torch.int64))
        self.register_buffer("codebooks_", torch.zeros(codewords, width))
        self.register_buffer("scales_", torch.zeros(levels))
        self.register_buffer("counts_", torch.zeros(levels, dtype=torch.int64))
        self.register_buffer("ids_", torch.zeros(total, dtype=torch.int64))
        self.table = FieldEmbedding(ids, dim)

    @property
    def quantizer(self) -> ResidualQuantizer:
        """What finds the codes of further items."""
        found = ResidualQuantizer(levels=len(self.sizes_))
        for name in FITTED:
            setattr(found, name, getattr(self, name).cpu().numpy())
        return found

    def take(self, quantizer: ResidualQuantizer, content: np.ndarray) -> None:
        """The ids that a fitted quantizer finds for all items, float32 [items, width]."""
        for name in FITTED:
            getattr(self, name).copy_(torch.as_tensor(getattr(quantizer, name)))
        self.codes = torch.from_numpy(quantizer.transform(content)).to(self.codes.device)

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors, [m, dim], of items with these ids, int [m, levels]."""
        return self.table(codes)


def ids_of(
    embedding: np.ndarray | None, beside: bool, origin: nn.Module | None
) -> tuple[dict[str, list[int]], ResidualQuantizer | None]:
    """How many semantic ids and codewords there are for a model to hold, and what finds them.

    embedding: of a strategy; whose vectors are quantized if ids are wanted beside them, or which is
    semantic ids itself. origin: a model of other items, whose ids are taken over.
    """
    if embedding is None or (embedding.dtype.kind != "i" and not beside):
        return {}, None
    known = {} if origin is None else origin.field_sizes
    if embedding.dtype.kind == "i":
        sizes = (embedding.max(axis=0) + 1).tolist()
        return {SEMANTIC_IDS: known.get(SEMANTIC_IDS, sizes)}, None
    if CODEWORDS in known:
        quantizer = origin.embedding.beside.quantizer
    else:
        quantizer = ResidualQuantizer(LEVELS).fit(embedding[1:])
    ids = (quantizer.counts_ + 1).tolist()
    return {SEMANTIC_IDS: ids, CODEWORDS: [len(quantizer.codebooks_)]}, quantizer
