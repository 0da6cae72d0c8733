"""Random data with the shape of MicroLens_1M_x1: what speed depends on, and nothing to learn."""

import numpy as np

from mmctr.data.catalog import Catalog
from mmctr.data.impressions import Impressions

ITEMS, TAGS, LONGEST, ROWS_PER_HISTORY = 91_717, 11_740, 100, 4


def catalog(items: int = ITEMS, seed: int = 0) -> Catalog:
    """Items with up to 5 tags and two levels."""
    random = np.random.default_rng(seed)
    tags = random.integers(1, TAGS, (items + 1, 5), dtype=np.int32)
    tags[np.arange(5) >= random.integers(1, 6, items + 1)[:, None]] = 0
    levels = random.integers(1, 11, (2, items + 1)).astype(np.int8)
    tags[0], levels[:, 0] = 0, 0
    return Catalog(
        tags=tags,
        likes_level=levels[0],
        views_level=levels[1],
        titles=np.full(items + 1, "", dtype=object),
        covers={},
    )


def item_embedding(items: int = ITEMS, width: int = 128, seed: int = 0) -> np.ndarray:
    """Random item embeddings, float32 [items + 1, width]."""
    values = np.random.default_rng(seed).standard_normal((items + 1, width), dtype=np.float32)
    values[0] = 0
    return values


def impressions(
    rows: int, items: int = ITEMS, mean_clicks: float = 9.0, seed: int = 0
) -> Impressions:
    """Rows of which four at a time share a history; a quarter are clicks.

    History lengths are geometric with the given mean, at most 100; items are popular as by a
    power law, so that a batch names many items more than once, as in a real log.
    """
    random = np.random.default_rng(seed)
    histories = -(-rows // ROWS_PER_HISTORY)
    length = np.minimum(random.geometric(1 / mean_clicks, histories), LONGEST)
    end = np.cumsum(length)
    of_row = np.arange(rows) // ROWS_PER_HISTORY
    return Impressions(
        user=of_row,
        target=_popular_items(random, rows, items),
        label=(np.arange(rows) % ROWS_PER_HISTORY == 0).astype(np.float32),
        history_start=(end - length)[of_row],
        history_end=end[of_row],
        history_items=_popular_items(random, int(end[-1]), items),
    )


def _popular_items(random: np.random.Generator, count: int, items: int) -> np.ndarray:
    """Item ids whose frequency falls with their rank to the power of -0.75."""
    rank = items * random.random(count, dtype=np.float32) ** 4
    return (rank.astype(np.int32) + 1).clip(1, items)
