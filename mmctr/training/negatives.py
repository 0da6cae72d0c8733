"""Negatives drawn anew for a later epoch, where the import had drawn them."""

import numpy as np

from mmctr.data.dataset import Dataset
from mmctr.data.importing.negatives import NegativeSampler


class FreshNegatives:
    """Train rows whose negatives can be drawn anew, in the way in which they were drawn before."""

    def __init__(self, dataset: Dataset) -> None:
        rows, known = dataset.train, dataset.known_rows
        users, number = np.unique(known.user, return_inverse=True)
        clicked = known.label == 1
        catalog = dataset.catalog
        by_clicks = dataset.negative_sampling == "popularity"
        weight = dataset.train_clicks() if by_clicks else np.ones(catalog.n_items + 1)
        if catalog.held_out is not None:
            weight = weight * (catalog.held_out == 0)
        items = known.target[clicked].astype(np.int64)
        self.sampler = NegativeSampler(weight, number[clicked], items)
        self.rows, self.negatives = rows, np.flatnonzero(rows.label != 1)
        self.user = np.searchsorted(users, rows.user[self.negatives])
        self.popularity = None if rows.levels is None else dataset.popularity

    def targets(self, rng: np.random.Generator) -> np.ndarray:
        """The target of each row, int32 [n]: that of a click stays, a negative is another item."""
        target = self.rows.target.copy()
        drawn = self.sampler.draw(self.user, lambda rows, _: rng.random(len(rows)))
        target[self.negatives] = np.where(drawn > 0, drawn, target[self.negatives])
        return target

    def levels(self, target: np.ndarray) -> np.ndarray | None:
        """Popularity levels of targets, int8 [n, 2], at the rows' times; None for data without."""
        return self.popularity and self.popularity.levels(target, self.rows.time)
