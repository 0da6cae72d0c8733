"""The names that the user's own tables have for items, users and tags: our numbers are not theirs.

`mmctr data import` writes them beside a dataset's files; without them a number is its own name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.util import hash_array

from mmctr.data import parquet, schema

PART = 1 << 18  # texts that are Python's objects at once


@dataclass(frozen=True)
class Names:
    """The names of a file. numbers: int64 [n], rising. texts: one each, in Arrow's memory, because
    there may be millions."""

    path: Path
    column: str
    numbers: np.ndarray
    texts: pa.Array

    @classmethod
    def read(
        cls,
        path: Path,
        column: str,
        name: str,
        *,
        low: int | None = 1,
        high: int | None = None,
        distinct: bool = True,
    ) -> Self:
        """Numbers of one column and names of another; DataError names file, column and row.

        distinct: look for two that have one name, which takes a second for millions.
        """
        table = parquet.read_columns(path, [column, name])
        numbers = parquet.integers(table[column], path, column, low=low, high=high)
        texts = parquet.texts(table[name], path, name)
        again = _repeated(texts) if distinct else None
        if again is not None:
            raise parquet.unfit(path, name, again, f"{texts[again].as_py()!r} again", "it once")
        order = np.argsort(numbers, kind="stable")
        twice = order[1:][np.diff(numbers[order]) == 0]
        if len(twice):
            raise parquet.unfit(path, column, twice[0], f"{numbers[twice[0]]} again", "it once")
        return cls(path, column, numbers[order], texts.take(pa.array(order)))

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """The name of each number as text, object [n]; DataError for one that has none."""
        place = np.searchsorted(self.numbers, numbers)
        known = place < len(self.numbers)
        known[known] = self.numbers[place[known]] == numbers[known]
        if not known.all():
            missing = numbers[known.argmin()]
            raise parquet.unfit(self.path, self.column, None, f"no {missing}", "each that is used")
        return self.texts.take(pa.array(place)).to_numpy(zero_copy_only=False)


def _repeated(texts: pa.Array) -> int | None:
    """The first place of a text that an earlier place has too; None if there is none."""
    # Eight bytes a text, because as Python's objects millions would not fit in memory.
    parts = (texts.slice(start, PART) for start in range(0, len(texts), PART))
    hashes = [hash_array(part.to_numpy(zero_copy_only=False), categorize=False) for part in parts]
    every = np.concatenate([np.zeros(0, dtype=np.uint64), *hashes])
    alike = np.flatnonzero(pd.Index(every).duplicated(keep=False))
    own = texts.take(pa.array(alike)).to_numpy(zero_copy_only=False)
    again = alike[pd.Index(own, dtype=object).duplicated()]
    return int(again[0]) if len(again) else None


def plain(numbers: np.ndarray) -> np.ndarray:
    """Numbers as text, object [n]: the names of what has no others."""
    return numbers.astype(str).astype(object)


def item_ids(folder: Path, n_items: int) -> np.ndarray | None:
    """The items' own ids as text, object [n_items + 1]; None if no file has them."""
    path = schema.find_file(folder, schema.ITEM_IDS)
    if path is None:
        return None
    found = Names.read(path, "item_id", "original_id", high=n_items)
    return np.concatenate([np.array([""], dtype=object), found.of(np.arange(1, n_items + 1))])


def tag_names(folder: Path) -> dict[int, str]:
    """The name of each tag that has one, by its number."""
    path = schema.find_file(folder, schema.TAG_NAMES)
    if path is None:
        return {}
    found = Names.read(path, "tag", "name")
    return dict(zip(found.numbers.tolist(), found.texts.to_pylist(), strict=True))


def user_ids(folder: Path, distinct: bool = False) -> Names | None:
    """The users' own ids; None if no file has them. distinct: look for two users with one id."""
    path = schema.find_file(folder, schema.USER_IDS)
    if path is None:
        return None
    return Names.read(path, "user_id", "original_id", low=None, distinct=distinct)
