"""The catalog: what is known of the items, an array a field.

Inside, an item's id is its row number; row 0 is padding and always zero. What is shown or written
for people has the items' own ids.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from mmctr.data import names, parquet, schema
from mmctr.data.fields import Field, load_fields, owner_codes
from mmctr.errors import DataError

if TYPE_CHECKING:
    from mmctr.data.erroneous import Exclusion

FEATURES = {"text_features": schema.TEXT_COLUMN, "image_features": schema.IMAGE_COLUMN}


@dataclass(frozen=True)
class Catalog:
    """What is known of the items; every array has n_items + 1 rows, row 0 being padding.

    tags: int32 [n_items + 1, tags per item], 0 = none. likes_level, views_level: int8
    [n_items + 1], 0 = unknown. titles: one string a row. covers: paths by item id.
    text_features, image_features: float32 [n_items + 1, width], or None if there are none.
    provided: the file of each ready-made item embedding, by column name. own_ids: text by row, ""
    for padding, or None where items have no ids but their row numbers. tag_names: by tag. fields:
    what else is known of items; field_codes: int32 [n_items + 1, fields], 0 = unknown. held_out:
    int8 [n_items + 1], 1 for items that valid alone knows, 2 for those of test; None without any.
    exclusion: what was left out of it, and unknown: int64, the items that lack title or cover for
    that; None where all is known.
    """

    tags: np.ndarray
    likes_level: np.ndarray
    views_level: np.ndarray
    titles: np.ndarray
    covers: dict[int, Path]
    text_features: np.ndarray | None = None
    image_features: np.ndarray | None = None
    provided: dict[str, Path] = field(default_factory=dict)
    own_ids: np.ndarray | None = None
    tag_names: dict[int, str] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    field_codes: np.ndarray | None = None
    held_out: np.ndarray | None = None
    exclusion: "Exclusion | None" = None
    unknown: np.ndarray | None = None

    @property
    def n_items(self) -> int:
        """The number of items, padding not counted."""
        return len(self.tags) - 1

    @cached_property
    def ids(self) -> np.ndarray:
        """What the user calls each item: text, object [n_items + 1], "" for padding."""
        if self.own_ids is not None:
            return self.own_ids
        ids = names.plain(np.arange(self.n_items + 1))
        ids[0] = ""
        return ids

    def numbers(self, ids: Iterable[str]) -> np.ndarray:
        """The row numbers of items by what the user calls them, int64 [n]; DataError for unknown
        ones."""
        own = [str(one) for one in ids]
        found = self._numbers.get_indexer(pd.Index(own, dtype=object)) + 1
        if not found.all():
            unknown = own[int(found.argmin())]
            known = parquet.listed(self.ids[1:4].tolist())
            raise DataError(
                f"Found item {unknown!r}, expected one of the {self.n_items:,} items of the "
                f"catalog, such as {known}: leave it out."
            )
        return found

    @cached_property
    def _numbers(self) -> pd.Index:
        return pd.Index(self.ids[1:], dtype=object)

    @property
    def ids_hash(self) -> str | None:
        """SHA-256 of the items' own ids in their order; None if they have none."""
        return None if self.own_ids is None else _hash(self.own_ids.tolist())

    @property
    def tags_hash(self) -> str | None:
        """SHA-256 of the tags' names; None if they have none."""
        return _hash(sorted(self.tag_names.items())) if self.tag_names else None

    def tag_name(self, tag: int) -> str:
        """What the user calls a tag; its number if it has no name."""
        return self.tag_names.get(int(tag), str(tag))

    def provided_embedding(self, column: str) -> np.ndarray:
        """A ready-made item embedding, float32 [n_items + 1, width]; DataError if it is unfit."""
        path = self.provided[column]
        kinds = schema.KINDS | {column: schema.FLOAT_LIST}  # whatever its name means elsewhere
        table = parquet.read_columns(path, ["item_id", column], kinds=kinds)
        found = _vectors(table, _item_ids(table, path, self.n_items), path, column, self.n_items)
        return found if self.unknown is None else without(found, self.unknown)


def without(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Features, [n_items + 1, width], where those of some rows are the mean of all others."""
    known = np.ones(len(features), dtype=bool)
    known[0] = known[rows] = False
    changed = np.array(features)
    changed[rows] = features[known].mean(axis=0, dtype=np.float64) if known.any() else 0
    return changed


def load_catalog(folder: Path) -> Catalog:
    """Read item_info.parquet, item_feature.parquet and item_images/, as far as they exist."""
    fields = load_fields(folder)
    return catalog_of(folder, item_arrays(folder, fields), fields)


def catalog_of(
    folder: Path, arrays: dict[str, np.ndarray | None], fields: Iterable[Field]
) -> Catalog:
    """Arrays, with what is quickly found: titles, covers, names, and those of embeddings."""
    n_items = len(arrays["tags"]) - 1
    found = {
        "titles": _titles(folder, n_items),
        "covers": _covers(folder, n_items),
        "provided": _provided(folder),
        "own_ids": names.item_ids(folder, n_items),
        "tag_names": names.tag_names(folder),
        "fields": tuple(field for field in fields if field.owner == "item"),
    }
    return Catalog(**found, **arrays)


def item_arrays(folder: Path, fields: Iterable[Field]) -> dict[str, np.ndarray | None]:
    """The catalog's arrays by field, all but the titles; codes of those fields that are items'."""
    info = schema.find_file(folder, "item_info.parquet")
    feature = schema.find_file(folder, "item_feature.parquet")
    if info is None and feature is None:
        raise DataError(
            f"{folder} has neither item_info.parquet nor item_feature.parquet: "
            "choose the folder of a dataset."
        )
    arrays = dict.fromkeys(("tags", *schema.LEVEL_COLUMNS, *FEATURES, "field_codes", "held_out"))
    if info is not None:
        table = parquet.read_columns(info, ["item_id", "item_tags"])
        n_items = len(table) - 1
        arrays["tags"] = _tags(table, _item_ids(table, info, n_items), info, n_items)
    if feature is not None:
        optional = [name for name in schema.ITEM_COLUMNS if name != "item_id"]
        table = parquet.read_columns(feature, ["item_id"], optional)
        if info is None:
            n_items = _largest_id(table, feature)
        ids = _item_ids(table, feature, n_items)
        if info is None and "item_tags" not in table.column_names:
            raise DataError(
                f"{feature} has no column item_tags, and there is no item_info.parquet to take it "
                "from."
            )
        if info is None:
            arrays["tags"] = _tags(table, ids, feature, n_items)
        for name in schema.LEVEL_COLUMNS:
            if name in table.column_names:
                levels = _levels(table[name], feature, name)
                levels[ids == 0] = 0  # whatever is said of padding
                arrays[name] = _by_id(ids, levels, n_items, feature, name)
        for field_name, column in FEATURES.items():
            if column in table.column_names:
                arrays[field_name] = _vectors(table, ids, feature, column, n_items)
        if "held_out" in table.column_names:
            held_out = parquet.integers(table["held_out"], feature, "held_out", low=0, high=2)
            arrays["held_out"] = _by_id(ids, held_out.astype(np.int8), n_items, feature, "held_out")
    if own := [field for field in fields if field.owner == "item"]:
        path = schema.find_file(folder, schema.ITEM_FIELDS)
        arrays["field_codes"] = owner_codes(path, "item_id", own, np.arange(n_items + 1))
    for name in schema.LEVEL_COLUMNS:
        if arrays[name] is None:
            arrays[name] = _levels_from_rows(folder, name, n_items)
    return arrays


def _hash(values: list) -> str:
    # As JSON, which keeps the bounds between texts.
    return sha256(json.dumps(values).encode()).hexdigest()


def _titles(folder: Path, n_items: int) -> np.ndarray:
    titles = np.full(n_items + 1, "", dtype=object)
    path = schema.find_file(folder, "item_feature.parquet")
    table = parquet.read_columns(path, ["item_id"], ["item_title"]) if path else None
    if table is not None and "item_title" in table.column_names:
        ids = _item_ids(table, path, n_items)
        titles[ids] = table["item_title"].fill_null("").to_numpy()
    return titles


def _item_ids(table: pa.Table, path: Path, high: int) -> np.ndarray:
    ids = parquet.integers(table["item_id"], path, "item_id", low=0, high=high)
    order = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(repeated):
        first, row = order[repeated[0]], order[repeated[0] + 1]
        found = f"{ids[row]} again (first in row {first})"
        raise parquet.unfit(path, "item_id", row, found, "each item once")
    return ids


def _largest_id(table: pa.Table, path: Path) -> int:
    ids = parquet.integers(table["item_id"], path, "item_id", low=0)
    # Ids number the rows of a table, so a huge one is an error and not a size to allocate.
    if ids.max(initial=0) > 2 * len(ids):
        expected = f"ids numbered from 1 for {len(ids)} items"
        raise parquet.unfit(path, "item_id", int(ids.argmax()), ids.max(), expected)
    return int(ids.max(initial=0))


def _tags(table: pa.Table, ids: np.ndarray, path: Path, n_items: int) -> np.ndarray:
    tags = parquet.matrix(table["item_tags"], path, "item_tags", np.int64)
    outside = ((tags < 0) | (tags > schema.MAX_TAG)).any(axis=1)
    if outside.any():
        row, expected = int(outside.argmax()), f"tag numbers from 0 to {schema.MAX_TAG}"
        raise parquet.unfit(path, "item_tags", row, tags[row].tolist(), expected)
    return _by_id(ids, tags.astype(np.int32), n_items, path, "item_tags")


def _vectors(table: pa.Table, ids: np.ndarray, path: Path, column: str, n_items: int) -> np.ndarray:
    values = parquet.matrix(table[column], path, column, np.float32)
    return _by_id(ids, values, n_items, path, column)


def _by_id(
    ids: np.ndarray, values: np.ndarray, n_items: int, path: Path, column: str
) -> np.ndarray:
    if values[ids == 0].any():
        expected = "zeros because item 0 is padding"
        raise parquet.unfit(path, column, int(ids.argmin()), "values for item 0", expected)
    result = np.zeros((n_items + 1, *values.shape[1:]), dtype=values.dtype)
    result[ids] = values
    result[0] = 0
    return result


def _levels(
    values: pa.Array | pa.ChunkedArray, path: Path, column: str, first_row: int = 0
) -> np.ndarray:
    high = schema.LEVELS - 1
    levels = parquet.integers(values, path, column, low=0, high=high, first_row=first_row)
    return levels.astype(np.int8)


def _levels_from_rows(folder: Path, column: str, n_items: int) -> np.ndarray:
    levels = np.zeros(n_items + 1, dtype=np.int8)
    # Train is read last, so that where splits differ it decides.
    for name in reversed(schema.SPLITS):
        path = schema.find_file(folder, f"{name}.parquet")
        if path is None or column not in parquet.table_schema(path).names:
            continue
        for first_row, batch in parquet.iterate_columns(path, ["item_id", column]):
            at = {"low": 1, "high": n_items, "first_row": first_row}
            target = parquet.integers(batch["item_id"], path, "item_id", **at)
            levels[target] = _levels(batch[column], path, column, first_row)
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
        for column in parquet.open_parquet(path).schema_arrow if path else ():
            if pa.types.is_nested(column.type) and column.name not in ("item_id", "item_tags"):
                columns.setdefault(column.name, path)
    return columns
