"""A small log whose items come up one after another, imported."""

import numpy as np

from mmctr.data.dataset import Dataset
from tests.data.importing.logs import ITEMS, imported

FEATURES = {
    "item_id": ITEMS["item_id"].tolist(),
    "txt_emb": [[float(n % 3), float(n % 2), n / 12] for n in range(len(ITEMS))],
}


def log_of(users=60, clicks=4, seed=0):
    """Clicks of items that are the later the higher their number; some at the same time."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        begin = rng.integers(0, 60)
        items = rng.permutation(7)[:clicks] + begin // 12
        times = begin + rng.integers(0, 20, size=clicks)
        rows += [(f"u{user}", int(i), int(t)) for i, t in zip(items, times, strict=True)]
    return rows


def timed(folder, **options):
    """The log as a dataset of text features, with two negatives for each click."""
    options = {"split": "date", "negatives": 2, "features": FEATURES} | options
    return Dataset.load(imported(folder, log_of(), **options)[0])
