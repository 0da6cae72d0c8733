"""Popularity as it was at a time: how often an item had been clicked in train by then.

A level that counted the very click to be predicted, or later ones, would tell the label.
"""

import numpy as np

from mmctr.data.impressions import Impressions, row_blocks
from mmctr.data.schema import LEVELS

MEAN_LEVEL = 5  # views_level of an item that is clicked as often as the mean item


class Popularity:
    """Train clicks of each item over time: valid and test know no others."""

    def __init__(self, train: Impressions, n_items: int) -> None:
        clicked = train.label == 1
        time, self.keys = train.time[clicked], train.target[clicked].astype(np.int64)
        self.times, self.n_items = np.sort(time), n_items
        # A click's key: its item, then how many clicks of any item came before it. Of hundreds of
        # millions of clicks there must not be more arrays than these.
        self.keys *= len(time) + 1
        for rows in row_blocks(len(time)):
            self.keys[rows] += _places(self.times, time[rows])
        self.keys.sort()
        self.first = np.searchsorted(self.keys, np.arange(n_items + 1) * (len(time) + 1))

    def clicks(self, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Clicks of items [n] before times, int64 [n] in nanoseconds: int64 [n]."""
        return self._among(_places(self.times, time), item)

    def levels(self, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """likes_level and views_level, int8 [n, 2], of items [n] at times, int64 [n]."""
        all_clicks = _places(self.times, time)
        return popularity_levels(self._among(all_clicks, item), all_clicks, self.n_items)

    def _among(self, all_clicks: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Clicks of items [n] among so many clicks of all, the first ones: int64 [n]."""
        keys = item.astype(np.int64) * (len(self.times) + 1) + all_clicks
        return _places(self.keys, keys) - self.first[item]


def _places(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """np.searchsorted, from the lowest value to the highest, int64 [n].

    In their own order each search in millions of numbers waits for memory, six times as long.
    """
    order, places = np.argsort(values), np.empty(len(values), dtype=np.int64)
    places[order] = np.searchsorted(ordered, values[order])
    return places


def popularity_levels(clicks: np.ndarray, all_clicks: np.ndarray | int, n_items: int) -> np.ndarray:
    """likes_level and views_level of items by their clicks, int8 [n, 2]; 0 for items never clicked.

    likes_level says how much is known: 1, 2, 3 to 4, 5 to 8 clicks and so on. views_level says how
    popular that is: the clicks beside those of the mean item, all_clicks / n_items, in steps of
    the square root of 2, so that it means the same early in a log and late.
    """
    known = np.maximum(clicks, 1).astype(np.float64)
    likes = 1 + np.ceil(np.log2(known))
    views = MEAN_LEVEL + np.floor(2 * np.log2(known * n_items / np.maximum(all_clicks, 1)))
    levels = np.clip(np.stack([likes, views], axis=-1), 1, LEVELS - 1)
    return np.where((clicks > 0)[..., None], levels, 0).astype(np.int8)
