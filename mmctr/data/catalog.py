"""The catalog: what is known of the items, an array a field.

An item's id is its row number everywhere; row 0 is padding and always zero.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmctr.data import parquet, schema
from mmctr.data.impressions import BATCH
from mmctr.errors import DataError


@dataclass(frozen=True)
class Catalog:
    """What is known of the items; every array has n_items + 1 rows, row 0 being padding.

    tags: int32 [n_items + 1, tags per item], 0 = none. likes_level, views_level: int8
    [n_items + 1], 0 = unknown. titles: one string a row. covers: paths by item id.
    text_features, image_features: float32 [n_items + 1, width], or None if there are none.
    provided: the file of each ready-made item embedding, by column name.
    """

    tags: np.ndarray
    likes_level: np.ndarray
    views_level: np.ndarray
    titles: np.ndarray
    covers: dict[int, Path]
    text_features: np.ndarray | None = None
    image_features: np.ndarray | None = None
    provided: dict[str, Path] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """The number of items, padding not counted."""
        return len(self.tags) - 1

    def provided_embedding(self, column: str) -> np.ndarray:
        """A ready-made item embedding, float32 [n_items + 1, width]; DataError if it is unfit."""
        path = self.provided[column]
        table = parquet.read_columns(path, ["item_id"], vectors=column)
        ids = _item_ids(table, path, low=0, high=self.n_items)
        values = parquet.matrix(table[column], path, column, np.float32)
        _check_padding(ids, values, path, column)
        return _by_id(ids, values, self.n_items)


def load_catalog(folder: Path) -> Catalog:
    """Read item_info.parquet, item_feature.parquet and item_images/, as far as they exist."""
    return catalog_of(folder, item_arrays(folder))


def catalog_of(folder: Path, arrays: dict[str, np.ndarray | None]) -> Catalog:
    """Arrays, with what is quickly found: titles, covers and names of ready-made embeddings."""
    n_items = len(arrays["tags"]) - 1
    return Catalog(
        titles=_titles(folder, n_items),
        covers=_covers(folder, n_items),
        provided=_provided(folder),
        **arrays,
    )


def item_arrays(folder: Path) -> dict[str, np.ndarray | None]:
    """The catalog's arrays by field, all but the titles."""
    info = schema.find_file(folder, "item_info.parquet")
    feature = schema.find_file(folder, "item_feature.parquet")
    if info is None and feature is None:
        raise DataError(
            f"{folder} has neither item_info.parquet nor item_feature.parquet: "
            "choose the folder of a dataset."
        )
    tags = None
    if info is not None:
        table = parquet.read_columns(info, ["item_id", "item_tags"])
        ids = _item_ids(table, info, low=0, high=len(table) - 1)
        tags = _tags(table, ids, info, n_items=len(table) - 1)
    columns: dict[str, np.ndarray] = {}
    if feature is not None:
        optional = [name for name in schema.ITEM_COLUMNS if name != "item_id"]
        table = parquet.read_columns(feature, ["item_id"], optional)
        high = len(tags) - 1 if tags is not None else _largest_id(table, feature)
        ids = _item_ids(table, feature, low=0, high=high)
        if tags is None:
            _require(table, "item_tags", feature)
            tags = _tags(table, ids, feature, n_items=high)
        columns = _item_columns(table, ids, feature, n_items=high)
    levels = {
        name: columns[name] if name in columns else _levels_from_rows(folder, name, len(tags) - 1)
        for name in ("likes_level", "views_level")
    }
    return {
        "tags": tags,
        **levels,
        "text_features": columns.get(schema.TEXT_COLUMN),
        "image_features": columns.get(schema.IMAGE_COLUMN),
    }


def _titles(folder: Path, n_items: int) -> np.ndarray:
    titles = np.full(n_items + 1, "", dtype=object)
    path = schema.find_file(folder, "item_feature.parquet")
    table = parquet.read_columns(path, ["item_id"], ["item_title"]) if path else None
    if table is not None and "item_title" in table.column_names:
        ids = _item_ids(table, path, low=0, high=n_items)
        titles[ids] = table["item_title"].fill_null("").to_numpy()
    return titles


def _item_ids(table: pa.Table, path: Path, *, low: int, high: int) -> np.ndarray:
    ids = parquet.integers(table["item_id"], path, "item_id", low=low, high=high)
    order = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(repeated):
        first, row = order[repeated[0]], order[repeated[0] + 1]
        raise DataError(
            f"{path}, column item_id, row {row}: found {ids[row]} again (first in row {first}), "
            "expected each item once."
        )
    return ids


def _largest_id(table: pa.Table, path: Path) -> int:
    ids = parquet.integers(table["item_id"], path, "item_id", low=0)
    # Ids number the rows of a table, so a huge one is an error and not a size to allocate.
    if len(ids) and ids.max() > 2 * len(ids):
        row = int(ids.argmax())
        raise DataError(
            f"{path}, column item_id, row {row}: found {ids[row]}, expected ids numbered from 1 "
            f"for {len(ids)} items."
        )
    return int(ids.max(initial=0))


def _tags(table: pa.Table, ids: np.ndarray, path: Path, n_items: int) -> np.ndarray:
    tags = parquet.matrix(table["item_tags"], path, "item_tags", np.int64)
    outside = np.flatnonzero(((tags < 0) | (tags > schema.MAX_TAG)).any(axis=1))
    if len(outside):
        raise DataError(
            f"{path}, column item_tags, row {outside[0]}: found {tags[outside[0]].tolist()}, "
            f"expected tag numbers from 0 to {schema.MAX_TAG}."
        )
    _check_padding(ids, tags, path, "item_tags")
    return _by_id(ids, tags.astype(np.int32), n_items)


def _item_columns(
    table: pa.Table, ids: np.ndarray, path: Path, n_items: int
) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name in ("likes_level", "views_level"):
        if name in table.column_names:
            high = schema.LEVELS - 1
            values = parquet.integers(table[name], path, name, low=0, high=high).astype(np.int8)
            columns[name] = _by_id(ids, values, n_items)
    for name in (schema.TEXT_COLUMN, schema.IMAGE_COLUMN):
        if name in table.column_names:
            values = parquet.matrix(table[name], path, name, np.float32)
            _check_padding(ids, values, path, name)
            columns[name] = _by_id(ids, values, n_items)
    return columns


def _check_padding(ids: np.ndarray, values: np.ndarray, path: Path, column: str) -> None:
    for row in np.flatnonzero(ids == 0):
        if np.any(values[row]):
            raise DataError(
                f"{path}, column {column}, row {row}: found values for item 0, "
                "expected zeros because item 0 is padding."
            )


def _by_id(ids: np.ndarray, values: np.ndarray, n_items: int) -> np.ndarray:
    result = np.zeros((n_items + 1, *values.shape[1:]), dtype=values.dtype)
    result[ids] = values
    result[0] = 0
    return result


def _levels_from_rows(folder: Path, column: str, n_items: int) -> np.ndarray:
    levels = np.zeros(n_items + 1, dtype=np.int8)
    # Train is read last, so that where splits differ it decides.
    for name in reversed(schema.SPLITS):
        path = schema.find_file(folder, f"{name}.parquet")
        if path is None or column not in parquet.open_parquet(path).schema_arrow.names:
            continue
        at = {"first_row": 0}
        for batch in parquet.iterate_columns(path, ["item_id", column], batch_rows=BATCH):
            target = parquet.integers(batch["item_id"], path, "item_id", low=1, high=n_items, **at)
            high = schema.LEVELS - 1
            levels[target] = parquet.integers(batch[column], path, column, low=0, high=high, **at)
            at["first_row"] += batch.num_rows
    return levels


def _covers(folder: Path, n_items: int) -> dict[int, Path]:
    images = folder / "item_images"
    if not images.is_dir():
        return {}
    return {
        int(path.stem): path
        for path in sorted(images.iterdir())
        if path.suffix.lower() in schema.COVER_SUFFIXES
        and path.stem.isdecimal()
        and path.is_file()
        and 1 <= int(path.stem) <= n_items
    }


def _provided(folder: Path) -> dict[str, Path]:
    columns = {}
    for name in ("item_emb.parquet", "item_info.parquet"):
        path = schema.find_file(folder, name)
        if path is not None:
            for column in parquet.open_parquet(path).schema_arrow:
                if pa.types.is_nested(column.type) and column.name != "item_tags":
                    columns.setdefault(column.name, path)
    return columns


def _require(table: pa.Table, column: str, path: Path) -> None:
    if column not in table.column_names:
        raise DataError(
            f"{path} has no column {column}, and there is no item_info.parquet to take it from."
        )
