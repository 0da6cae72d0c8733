"""A part of train for a first look: whole users, drawn by chance."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mmctr.errors import ConfigError

if TYPE_CHECKING:
    from mmctr.data.dataset import Dataset


def part_of_train(dataset: "Dataset", rows: int | None) -> "Dataset":
    """A dataset whose train is that many rows of its own at most; as it is for None.

    Users are drawn one after the other, and of those drawn all rows are taken: what was shown
    together stays together, and so do clicks and the negatives drawn for them. The draw is the
    same for every strategy and seed of training, and a smaller part lies in a larger one. Valid
    and test stay whole, and popularity levels are those of all of train, as rows and items have
    them.
    Raises ConfigError for as many rows as train has, and for fewer than the first users drawn have
    until there are both clicks and non-clicks.
    """
    if rows is None:
        return dataset
    train = dataset.train
    if rows >= len(train):
        raise ConfigError(
            f"Parameter 'rows' is {rows}, expected fewer than the {len(train):,} rows of train, of "
            "which it takes a part: leave it out to learn from all."
        )
    users, user, counts = np.unique(train.user, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(users))
    drawn = np.cumsum(counts[order])
    clicks = np.cumsum(np.bincount(user, train.label)[order])
    # Where train itself has one kind only, that is told of train, not of `rows`.
    least = drawn[np.argmax((clicks > 0) & (clicks < drawn))]
    if rows < least:
        raise ConfigError(
            f"Parameter 'rows' is {rows}, expected at least {least:,}: users are taken whole, and "
            "those drawn first have so many train rows until there are clicks and non-clicks."
        )
    taken = np.zeros(len(users), dtype=bool)
    taken[order[: np.searchsorted(drawn, rows, side="right")]] = True
    part = train.select(np.flatnonzero(taken[user]))
    found = replace(dataset, splits=dataset.splits | {"train": part})
    vars(found)["fingerprint"] = dataset.fingerprint  # that of the files, which are the same
    if train.time is not None:
        # Levels of negatives that are drawn anew are told as those of the rows were, or they
        # would tell a click from a negative.
        vars(found)["popularity"] = dataset.popularity
    return found
