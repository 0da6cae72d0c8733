"""Windows of time: what could be learned when each began, and the rows that it then tests on."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions, joined
from mmctr.data.popularity import Popularity, popularity_levels
from mmctr.errors import ConfigError, DataError

VALID = 0.1  # share of the newest rows that training is stopped by


@dataclass(frozen=True)
class Window:
    """Rows of a time to test on, and those before it: slices of rows that are sorted by time.

    number: counts from 1. newest, valid, test, end: where the newest rows before the window begin,
    the last of these, by which training is stopped, those of the window, and those after it.
    """

    dataset: Dataset
    rows: Impressions
    number: int
    newest: int
    valid: int
    test: int
    end: int

    @cached_property
    def clicks(self) -> np.ndarray:
        """How often each item was clicked in the rows to learn from, int64 [n_items + 1]."""
        target, label = self.rows.target[: self.valid], self.rows.label[: self.valid]
        return np.bincount(target[label == 1], minlength=self.dataset.catalog.n_items + 1)

    def datasets(self) -> tuple[Dataset, Dataset]:
        """The window as a dataset whose train is all that came before, and one whose train is the
        newest rows alone while the clicks of all are known.

        Popularity is that of each row's time, and of the end of train in the catalog; only clicks
        of train count. Valid and test are the same rows in both.
        """
        catalog, train = self.dataset.catalog, self.rows.select(slice(0, self.valid))
        popularity = Popularity(train, catalog.n_items)
        target, time = self.rows.target[: self.end], self.rows.time[: self.end]
        known = self.rows.select(slice(0, self.end))
        known = replace(known, levels=popularity.levels(target, time))
        levels = popularity_levels(self.clicks, self.clicks.sum(), catalog.n_items)
        # Items that an import held out of train are items like others here.
        catalog = replace(
            catalog, likes_level=levels[:, 0], views_level=levels[:, 1], held_out=None
        )
        bounds = {
            "train": slice(0, self.valid),
            "valid": slice(self.valid, self.test),
            "test": slice(self.test, self.end),
        }
        splits = {name: known.select(rows) for name, rows in bounds.items()}
        whole = replace(self.dataset, catalog=catalog, splits=splits)
        newest = {"train": known.select(slice(self.newest, self.valid))}
        return whole, replace(whole, splits=splits | newest, known=splits["train"])


def windows(dataset: Dataset, count: int) -> list[Window]:
    """Cut the rows of all splits that have labels into `count` windows that follow each other.

    There is one part more than windows, all of about equally many rows: window k tests on part k,
    and learns from the parts before it, 0 among them; the last tenth of part k - 1 is its valid.
    Rows of one moment, such as a click and its negatives, stay together. Raises DataError for rows
    without times, ConfigError for more windows than the rows allow.
    """
    rows = _pooled(dataset)
    cuts = cut(rows.time, 0, len(rows), np.arange(1, count + 1) / (count + 1))
    found = []
    for number, (start, stop) in enumerate(pairwise([0, *cuts]), start=1):
        (valid,) = cut(rows.time, start, stop, np.array([1 - VALID]))
        end = int(cuts[number]) if number < count else len(rows)
        window = Window(dataset, rows, number, int(start), int(valid), int(stop), end)
        bounds = [window.newest, window.valid, window.test, window.end]
        for use, part in zip(("learn from", "stop by", "test on"), pairwise(bounds), strict=True):
            if len(np.unique(rows.label[slice(*part)])) < 2:
                raise ConfigError(
                    f"Window {number} of {count} has {part[1] - part[0]} rows to {use} in "
                    f"{dataset.folder}, expected clicks and non-clicks: choose fewer windows."
                )
        found.append(window)
    return found


def cut(time: np.ndarray, start: int, stop: int, shares: np.ndarray) -> np.ndarray:
    """Places in start..stop of sorted times after about these shares, at changes of time, int64."""
    changes = start + 1 + np.flatnonzero(np.diff(time[start:stop]))
    changes = np.concatenate([[start], changes, [stop]])
    wanted = start + shares * (stop - start)
    after = np.searchsorted(changes, wanted).clip(1, len(changes) - 1)
    nearer = wanted - changes[after - 1] <= changes[after] - wanted
    return changes[after - nearer]


def _pooled(dataset: Dataset) -> Impressions:
    """The rows of all splits that have labels and times, by time."""
    if dataset.train.time is None:
        raise DataError(
            f"{dataset.folder} has no column time in train.parquet, expected the time of each row, "
            "by which windows are cut: make the dataset from a log with mmctr data import."
        )
    parts = [p for p in dataset.splits.values() if p.label is not None and p.time is not None]
    rows = joined(parts)
    return rows.select(np.argsort(rows.time, kind="stable"))
