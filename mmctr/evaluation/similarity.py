"""Which items an embedding calls alike, and whether users agree."""

import numpy as np
from sklearn.metrics import roc_auc_score

from mmctr.data.dataset import Dataset
from mmctr.data.impressions import slice_positions


def cosine(embedding: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity of pairs of items, float32 [n]; zero where an embedding is zero."""
    lengths = np.linalg.norm(embedding, axis=1)
    products = np.einsum("nd,nd->n", embedding[left], embedding[right])
    return products / np.maximum(lengths[left] * lengths[right], 1e-12)


def nearest(embedding: np.ndarray, item: int, count: int) -> np.ndarray:
    """The items most similar to an item by cosine, int64 [count], the nearest first.

    Fewer than `count` if there are no more items.
    """
    items = np.arange(len(embedding))
    similarity = cosine(embedding, np.full(len(items), item), items)
    similarity[[0, item]] = -np.inf
    return np.argsort(-similarity, kind="stable")[: min(count, len(items) - 2)]


def item_map(embedding: np.ndarray) -> np.ndarray:
    """A place in the plane for each item, [n, 2]: near where embeddings are alike (t-SNE)."""
    from sklearn.manifold import TSNE

    # Items that are all alike have one place. t-SNE cannot say so: it divides by their spread.
    if (embedding == embedding[0]).all():
        return np.zeros((len(embedding), 2), dtype=np.float32)
    # It starts from two principal components, which a single column does not have.
    columns = np.pad(embedding, ((0, 0), (0, max(0, 2 - embedding.shape[1]))))
    perplexity = max(1, min(30, len(embedding) // 4))
    return TSNE(perplexity=perplexity, max_iter=500, random_state=0).fit_transform(columns)


def co_click_pairs(
    dataset: Dataset, count: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of items that one user clicked, and for each item one clicked by somebody else.

    Returns item, together, apart: int32 [count]. `together` was clicked right after `item` in a
    train history; `apart` is another pair's, so that popularity tells nothing.
    """
    rows, rng = dataset.train, np.random.default_rng(seed)
    slices = np.unique(np.stack([rows.history_start, rows.history_end]), axis=1)
    lengths = slices[1] - slices[0]
    ends = np.cumsum(lengths)
    flat = slice_positions(slices[0], lengths)
    has_next = np.ones(len(flat), dtype=bool)
    has_next[ends[lengths > 0] - 1] = False
    first = flat[has_next]
    first = rng.choice(first, size=min(count, len(first)), replace=False)
    item, together = rows.history_items[first], rows.history_items[first + 1]
    return item, together, rng.permutation(together)


def co_click_auc(embedding: np.ndarray, pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """How often cosine similarity tells an item clicked together from one that was not (AUC)."""
    item, together, apart = pairs
    scores = [cosine(embedding, item, together), cosine(embedding, item, apart)]
    label = np.repeat([1, 0], len(item))
    return float(roc_auc_score(label, np.concatenate(scores))) if len(item) else float("nan")
