"""The names that the user's own tables have for items, users and tags: our numbers are not theirs.

`mmctr data import` writes them beside a dataset's files; without them a number is its own name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa

from mmctr.data import parquet, schema


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
        cls, path: Path, column: str, name: str, *, high: int | None = None, many: bool = False
    ) -> Self:
        """Numbers of one column and names of another; DataError names file, column and row.

        many: whether there are too many to look for two that have one name.
        """
        table = parquet.read_columns(path, [column, name])
        low = None if many else 1
        numbers = parquet.integers(table[column], path, column, low=low, high=high)
        texts = parquet.texts(table[name], path, name)
        if not many:
            own = texts.to_numpy(zero_copy_only=False)
            again = pd.Index(own).duplicated()
            if again.any():
                row = int(again.argmax())
                raise parquet.unfit(path, name, row, f"{own[row]!r} again", "each name once")
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


def user_ids(folder: Path) -> Names | None:
    """The users' own ids; None if no file has them."""
    path = schema.find_file(folder, schema.USER_IDS)
    return Names.read(path, "user_id", "original_id", many=True) if path else None
