"""Which clicks are for train, valid and test: time runs one way."""

import numpy as np

from mmctr.data import schema
from mmctr.data.importing.events import Clicks
from mmctr.data.importing.recipe import Recipe
from mmctr.errors import ConfigError


def split_clicks(clicks: Clicks, recipe: Recipe) -> np.ndarray:
    """The split of each click, as text [clicks]."""
    split = np.full(len(clicks.item), "train", dtype="<U5")
    if recipe.split == "last-two":
        end = np.r_[clicks.start[1:] != clicks.start[:-1], True].nonzero()[0]
        last = end[np.searchsorted(end, np.arange(len(split)))]
        from_last = last - np.arange(len(split))
        enough = last - clicks.start >= 2  # someone with fewer clicks is there to learn from
        split[enough & (from_last == 1)] = "valid"
        split[enough & (from_last == 0)] = "test"
        if not enough.any():
            raise ConfigError(
                "No user has three clicks, so valid and test would be empty: import with "
                "--split date."
            )
        return split
    times = np.sort(clicks.time)
    early, late = (times[int(share * len(times))] for share in (0.8, 0.9))
    valid_from = early if recipe.valid_from is None else recipe.valid_from
    test_from = late if recipe.test_from is None else recipe.test_from
    split[clicks.time >= valid_from] = "valid"
    split[clicks.time >= test_from] = "test"
    missing = [name for name in schema.SPLITS if not (split == name).any()]
    if missing:
        raise ConfigError(
            f"No click falls into {missing[0]} with valid_from {valid_from} and test_from "
            f"{test_from}: choose times between {times[0]} and {times[-1]}."
        )
    return split
