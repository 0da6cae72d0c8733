"""Clicks whose right answer is known: items of two kinds, and users who stay with one of them."""

import numpy as np

from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions

ITEMS = 60
KIND = np.r_[0, np.arange(ITEMS) % 2]  # of each item, padding first


def checkerboard(folder):
    """A target is clicked if, and only if, it is of the kind of the user's only earlier click.

    Text and image features lie around -1 for one kind and around 1 for the other.
    """
    rng = np.random.default_rng(0)
    content = np.zeros((ITEMS + 1, 4), dtype=np.float32)
    content[1:] = rng.normal(0, 0.3, (ITEMS, 4)) + 2 * KIND[1:, None] - 1
    splits = {}
    for name, count in (("train", 3000), ("valid", 600)):
        history, target = rng.integers(1, ITEMS + 1, (2, count)).astype(np.int32)
        start = np.arange(count)
        label = (KIND[history] == KIND[target]).astype(np.float32)
        splits[name] = Impressions(start, target, label, start, start + 1, history)
    none = np.zeros(ITEMS + 1, dtype=np.int8)
    tags = np.zeros((ITEMS + 1, 1), dtype=np.int32)
    catalog = Catalog(tags, none, none, np.full(ITEMS + 1, ""), {}, content, content)
    return Dataset(folder, catalog, splits)
