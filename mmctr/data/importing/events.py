"""A log as clicks, sorted by user and time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mmctr.data import parquet, schema
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import as_numbers, as_times, places_of, require_ids
from mmctr.errors import DataError


@dataclass(frozen=True)
class Clicks:
    """A log sorted by user and time: int64 arrays, one row a click.

    user: as in the log, or numbered from 1. item: new ids. time: any unit. start: where the
    user's clicks begin. before: the first click at the same time, so that start..before are the
    clicks that happened earlier.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    start: np.ndarray
    before: np.ndarray


def read_clicks(
    log: pa.Table, original: pa.ChunkedArray, path: Path, recipe: Recipe
) -> tuple[Clicks, pa.Array | None, dict[str, int]]:
    """The clicks of a log, the original user ids if they had to be numbered, and counts."""
    counts = {"interactions": len(log)}
    if recipe.min_rating is not None:
        if recipe.rating_column not in log.column_names:
            raise DataError(
                f"{path} has no column {recipe.rating_column}, which min_rating needs: name the "
                "rating column or leave min_rating out."
            )
        rating = log[recipe.rating_column]
        if not parquet.is_kind(rating.type, schema.NUMBER):
            raise parquet.unfit(path, recipe.rating_column, None, rating.type, schema.NUMBER)
        rating = rating.cast(pa.float64(), safe=False)
        log = log.filter(pc.greater_equal(rating, recipe.min_rating))
        counts["below_min_rating"] = counts["interactions"] - len(log)
    for column in (recipe.user_column, recipe.item_column, recipe.time_column):
        row = pc.index(pc.is_null(log[column], nan_is_null=True), True).as_py()
        if row >= 0:
            raise parquet.unfit(path, column, row, "no value", "one")
    for column in (recipe.user_column, recipe.item_column):
        require_ids(log[column], path, column)
    item = places_of(log[recipe.item_column], original)
    known = item.is_valid().to_numpy()
    counts["of_unknown_items"] = int((~known).sum())
    item = item.filter(pa.array(known)).to_numpy().astype(np.int64) + 1
    user, users = as_numbers(log[recipe.user_column])
    time = as_times(log[recipe.time_column], path, recipe.time_column)
    user, time = user[known], time[known]
    if not len(item):
        raise DataError(f"{path} has no click on an item of the items table: check the id columns.")
    order = np.lexsort((np.arange(len(item)), time, user))
    # A user clicks an item once: only the first time tells of a choice among unseen items.
    repeated = pd.DataFrame({"user": user[order], "item": item[order]}).duplicated().to_numpy()
    counts["repeated"] = int(repeated.sum())
    order = order[~repeated]
    user, item, time = user[order], item[order], time[order]
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_time = new_user | np.r_[True, time[1:] != time[:-1]]
    at = np.arange(len(item))
    start = np.maximum.accumulate(np.where(new_user, at, 0))
    before = np.maximum.accumulate(np.where(new_time, at, 0))
    counts |= {"clicks": len(item), "users": int(new_user.sum())}
    return Clicks(user, item, time, start, before), users, counts
