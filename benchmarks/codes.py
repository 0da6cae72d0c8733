"""Other ways to quantize an item embedding, for `benchmarks.new_items`: beside v6's residual one.

The library holds one quantizer; these are what it was compared with, on the same vectors.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from mmctr.content.quantization import LEVELS, codes_for

PARTS, CODEBOOK = 64, 1024  # of VQ codes: 512 parts of both media's vectors in the published entry


def product_codes(embedding: np.ndarray, seed: int = 0) -> np.ndarray:
    """Product quantization (Jegou et al., 2011): a codebook for each of LEVELS slices of columns.

    int32 [n, LEVELS] of float32 [n, width], row 0 padding; from 1, as many codes as v6 has a level.
    """
    size = codes_for(len(embedding) - 1)
    parts = np.array_split(embedding[1:], LEVELS, axis=1)
    sizes = [min(size, len(np.unique(part, axis=0))) for part in parts]
    codes = [
        KMeans(size, n_init=1, random_state=seed).fit_predict(part) + 1
        for size, part in zip(sizes, parts, strict=True)
    ]
    return np.pad(np.stack(codes, axis=1), ((1, 0), (0, 0))).astype(np.int32)


def vq_codes(embedding: np.ndarray, seed: int = 0) -> np.ndarray:
    """One codebook for all of PARTS slices, as an entry to the challenge had it, by k-means.

    int32 [n, PARTS], from 1.
    """
    parts = embedding[1:].reshape(len(embedding) - 1, PARTS, -1)
    flat = parts.reshape(-1, parts.shape[2])
    drawn = np.random.default_rng(seed).permutation(len(flat))[:100_000]
    means = KMeans(CODEBOOK, n_init=1, random_state=seed).fit(flat[drawn])
    codes = means.predict(flat).reshape(-1, PARTS) + 1
    return np.pad(codes, ((1, 0), (0, 0))).astype(np.int32)


class Pooled(nn.Module):
    """The mean of a vector for each code, whichever slice has it: a sequence field, pooled."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(CODEBOOK + 1, dim, mode="mean", padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.01)
        with torch.no_grad():
            self.table.weight[0] = 0

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors, [n, dim], of codes, int [n, PARTS]."""
        return self.table(codes)
