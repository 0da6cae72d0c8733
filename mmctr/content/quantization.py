"""v6: item embeddings quantized into semantic ids, of which each prefix is an id of its own.

Residual quantization (RQ-VAE: TIGER, arXiv 2305.05065, with k-means in place of its encoder, as
QARM has it, arXiv 2411.11739); prefixes after arXiv 2504.02137. arXiv 2504.18961 names quantization
that keeps the structure of multimodal data as future work.
"""

from collections.abc import Iterator

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

LEVELS = 3
FEWEST, MOST = 16, 1024  # codes of a level
FITTED = 100_000  # items that codebooks are fitted to; of more a part is drawn
SHARED = 10  # items that an id below the first level needs: those of few are learned like own ids
NOTHING = 1e-4  # of a root mean square of 1 is rounding: scaled up it would pass for content
BLOCK = 65_536  # items that are compared with a codebook at once


class ResidualQuantizer(TransformerMixin, BaseEstimator):
    """Codes of vectors, level by level: each quantizes by k-means what the one before left over.

    What is left is scaled to a root mean square of 1 before the next level, so that all codebooks
    are of one kind. A semantic id is the codes down to a level: items that share it are alike as
    far as that level tells. Ids that too few items shared in fitting are 0, as those of items
    without content (zeros).
    """

    def __init__(self, levels: int = LEVELS, seed: int = 0) -> None:
        self.levels, self.seed = levels, seed

    def fit(self, X: np.ndarray, y: object = None) -> "ResidualQuantizer":
        """Learn codebooks, and which ids there are, from vectors, float32 [n, width]."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        there = X[X.any(axis=1)].astype(np.float32)
        size = codes_for(len(there))
        # By likeness to the mean, so that neither the choice nor k-means depends on their order.
        order = np.argsort(there @ there.mean(axis=0), kind="stable") if len(there) else []
        rest = there[order[:: -(-len(there) // FITTED)]] if len(there) else np.zeros_like(X[:1])
        codebooks, scales = [], []
        # Sums depend on the number of threads, and the codes of items would with them.
        with threadpool_limits(limits=1):
            for _ in range(self.levels):
                scale = float(np.sqrt(np.mean(np.square(rest, dtype=np.float64))))
                scale = scale or 1.0
                rest = rest / np.float32(scale)
                distinct = len(np.unique(rest, axis=0))
                means = KMeans(min(size, distinct), n_init=1, random_state=self.seed).fit(rest)
                codebook = means.cluster_centers_.astype(np.float32)
                rest = _left_over(rest, codebook[_nearest(rest, codebook)])
                codebooks.append(codebook)
                scales.append(scale)
        self.sizes_ = np.array([len(codebook) for codebook in codebooks])
        self.codebooks_ = np.vstack(codebooks)
        self.scales_ = np.array(scales, dtype=np.float32)
        prefixes = self._prefixes(self.codes(X))
        found = []
        for level in range(self.levels):
            ids, items = np.unique(prefixes[X.any(axis=1), level], return_counts=True)
            found.append(ids[items >= (SHARED if level else 1)])
        self.counts_ = np.array([len(ids) for ids in found])
        self.ids_ = np.concatenate(found)
        return self

    def codes(self, X: np.ndarray) -> np.ndarray:
        """The number of each level's nearest codeword, int64 [n, levels]."""
        result = np.zeros((len(X), self.levels), dtype=np.int64)
        for first in range(0, len(X), BLOCK):
            rest = X[first : first + BLOCK].astype(np.float32)
            for level, (codebook, scale) in enumerate(self._levels()):
                rest = rest / scale
                result[first : first + BLOCK, level] = code = _nearest(rest, codebook)
                rest = _left_over(rest, codebook[code])
        return result

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """What semantic ids, int [n, levels], know of the vectors: float32 [n, width]."""
        result, scale = np.zeros((len(ids), self.codebooks_.shape[1]), np.float32), 1.0
        known = np.split(self.ids_, np.cumsum(self.counts_)[:-1])
        for level, (codebook, own) in enumerate(self._levels()):
            scale, there = scale * own, ids[:, level] > 0
            codes = known[level][ids[there, level] - 1] % len(codebook)
            result[there] += codebook[codes] * np.float32(scale)
        return result

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Semantic ids by level, int32 [n, levels], from 1 in each; 0 is unknown."""
        prefixes, result = self._prefixes(self.codes(X)), np.zeros((len(X), self.levels), np.int32)
        for level, known in enumerate(np.split(self.ids_, np.cumsum(self.counts_)[:-1])):
            if not len(known):
                continue
            place = np.searchsorted(known, prefixes[:, level])
            found = known[np.minimum(place, len(known) - 1)] == prefixes[:, level]
            result[found, level] = place[found] + 1
        result[~X.any(axis=1)] = 0
        return result

    def _levels(self) -> Iterator[tuple[np.ndarray, float]]:
        books = np.split(self.codebooks_, np.cumsum(self.sizes_)[:-1])
        return zip(books, self.scales_, strict=True)

    def _prefixes(self, codes: np.ndarray) -> np.ndarray:
        """One number for the codes down to each level, int64 [n, levels]."""
        result = codes.copy()
        for level in range(1, self.levels):
            result[:, level] += result[:, level - 1] * self.sizes_[level]
        return result


def codes_for(items: int) -> int:
    """How many codes a level has: twice the cube root of the number of items, as a power of two.

    Three levels then have eight times as many cells as there are items, so that most have one of
    their own, and the first two are shared by several.
    """
    return int(np.clip(2 ** round(np.log2(2 * np.cbrt(max(items, 1)))), FEWEST, MOST))


def _left_over(vectors: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """What codewords leave of vectors, without what is mere rounding."""
    rest = vectors - codewords
    rest[np.abs(rest) < NOTHING] = 0
    return rest


def _nearest(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """The nearest codeword of each vector, int64 [n]; of equally near ones the first."""
    lengths = np.square(codebook).sum(axis=1)
    return (lengths - 2 * vectors @ codebook.T).argmin(axis=1)
