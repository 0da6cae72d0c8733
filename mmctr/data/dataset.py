"""Dataset = Catalog + Impressions (train, valid, test), loaded from the challenge's files.

An item's id is its row number everywhere; row 0 is padding and always zero. Histories are ragged:
slices of one flat array, stored once however many rows share them.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from mmctr.data import schema
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
        table = schema.read_columns(path, ["item_id", column])
        ids = _item_ids(table, path, low=0, high=self.n_items)
        values = schema.matrix(table[column], path, column, np.float32)
        _check_padding(ids, values, path, column)
        return _by_id(ids, values, self.n_items)


@dataclass(frozen=True)
class Impressions:
    """Rows of (user, target, label) with ragged histories.

    user: int64 [n]. target: int32 [n]. label: float32 [n] of 0 and 1, or None. history_start,
    history_end: int64 [n], slices of history_items: int32 [total], oldest click first.
    probability: float64 [n], the true click probability of simulated data, or None.
    """

    user: np.ndarray
    target: np.ndarray
    label: np.ndarray | None
    history_start: np.ndarray
    history_end: np.ndarray
    history_items: np.ndarray
    probability: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def history_length(self) -> np.ndarray:
        """Clicks in each row's history, int64 [n]."""
        return self.history_end - self.history_start

    @property
    def oracle(self) -> dict[str, np.ndarray]:
        """The true click probability as a system named "oracle"; empty for real data."""
        return {} if self.probability is None else {"oracle": self.probability}

    def history(self, row: int) -> np.ndarray:
        """The clicked items of one row, int32 [clicks], oldest first."""
        return self.history_items[self.history_start[row] : self.history_end[row]]

    def select(self, rows: np.ndarray) -> "Impressions":
        """The given rows, in the given order; the flat histories stay shared."""
        return Impressions(
            user=self.user[rows],
            target=self.target[rows],
            label=None if self.label is None else self.label[rows],
            history_start=self.history_start[rows],
            history_end=self.history_end[rows],
            history_items=self.history_items,
            probability=None if self.probability is None else self.probability[rows],
        )


@dataclass(frozen=True)
class Dataset:
    """A folder in the challenge's files, loaded and validated."""

    folder: Path
    catalog: Catalog
    splits: dict[str, Impressions]

    @classmethod
    def load(cls, folder: Path | str) -> "Dataset":
        """Read and validate a folder; DataError names the file, column and row at fault."""
        folder = existing_folder(folder)
        catalog = load_catalog(folder)
        splits = {}
        for name in schema.SPLITS:
            path = schema.find_file(folder, f"{name}.parquet")
            if path is not None:
                splits[name] = load_impressions(path, catalog.n_items, labelled=name != "test")
            elif name != "test":
                raise DataError(
                    f"{folder} has no {name}.parquet, neither there nor in "
                    f"{schema.NESTED_FOLDER}/: choose the folder of a dataset."
                )
        return cls(folder, catalog, _with_truth(folder, splits))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def simulated(self) -> bool:
        """Whether true click probabilities are known, as only simulated data can."""
        return self.splits["train"].probability is not None

    @property
    def train(self) -> Impressions:
        """The rows to learn from."""
        return self.splits["train"]

    @property
    def valid(self) -> Impressions:
        """The rows to choose by."""
        return self.splits["valid"]

    def split(self, name: str) -> Impressions:
        """One split by name; DataError lists those that exist."""
        if name not in self.splits:
            raise DataError(
                f"{self.folder} has no split {name!r}: choose one of {', '.join(self.splits)}."
            )
        return self.splits[name]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the contents of the dataset's parquet files, its first 16 digits."""
        digest = hashlib.sha256()
        for name in schema.FILES:
            path = schema.find_file(self.folder, name)
            if path is not None:
                digest.update(name.encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    @cached_property
    def encoders(self) -> dict[str, dict[str, object]]:
        """What is known of the encoders that made the features, by column; mostly nothing."""
        path = schema.find_file(self.folder, "item_feature.parquet")
        metadata = schema.open_parquet(path).schema_arrow.metadata if path else None
        try:
            return dict(json.loads((metadata or {}).get(schema.ENCODERS, b"{}")))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path} has damaged metadata {schema.ENCODERS.decode()} ({error}): "
                "extract the features again."
            ) from error

    def summary(self) -> pd.DataFrame:
        """One row a split: rows, users, click rate and history lengths."""
        return pd.DataFrame(
            [
                {
                    "split": name,
                    "rows": len(rows),
                    "users": len(np.unique(rows.user)),
                    "target items": len(np.unique(rows.target)),
                    "click rate": float("nan") if rows.label is None else rows.label.mean(),
                    "mean history": rows.history_length.mean() if len(rows) else 0.0,
                    "longest history": rows.history_length.max(initial=0),
                }
                for name, rows in self.splits.items()
            ]
        )

    def train_clicks(self) -> np.ndarray:
        """How often each item was clicked as a train target, int64 [n_items + 1]."""
        clicked = self.train.target[self.train.label == 1]
        return np.bincount(clicked, minlength=self.catalog.n_items + 1)

    def repeated_rows(self) -> int:
        """How many valid rows also stand in train with the same user, target and history."""
        train, valid = (
            pd.MultiIndex.from_arrays([rows.user, rows.target, history_hashes(rows)])
            for rows in (self.train, self.valid)
        )
        return int(valid.isin(train).sum())


def check(folder: Path | str) -> tuple[Dataset | None, list[str]]:
    """Validate every file of a folder: the dataset if all is well, and the errors of each file."""
    folder, errors = existing_folder(folder), []

    def attempt(load: Callable[[], object]) -> object:
        try:
            return load()
        except DataError as error:
            errors.append(str(error))
            return None

    catalog = attempt(lambda: load_catalog(folder))
    n_items = catalog.n_items if catalog else np.iinfo(np.int32).max
    for name in schema.SPLITS:
        path = schema.find_file(folder, f"{name}.parquet")
        if path is not None:
            attempt(lambda path=path, name=name: load_impressions(path, n_items, name != "test"))
    for column in catalog.provided if catalog else ():
        attempt(lambda column=column: catalog.provided_embedding(column))
    dataset = None if errors else attempt(lambda: Dataset.load(folder))
    return dataset, errors


def existing_folder(folder: Path | str) -> Path:
    """The folder as an absolute path; DataError if there is none."""
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise DataError(f"{folder} is not a folder: name one that holds a dataset's files.")
    return path


def load_catalog(folder: Path) -> Catalog:
    """Read item_info.parquet, item_feature.parquet and item_images/, as far as they exist."""
    info = schema.find_file(folder, "item_info.parquet")
    feature = schema.find_file(folder, "item_feature.parquet")
    if info is None and feature is None:
        raise DataError(
            f"{folder} has neither item_info.parquet nor item_feature.parquet: "
            "choose the folder of a dataset."
        )
    tags = None
    if info is not None:
        table = schema.read_columns(info, ["item_id", "item_tags"])
        ids = _item_ids(table, info, low=0, high=len(table) - 1)
        tags = _tags(table, ids, info, n_items=len(table) - 1)
    columns: dict[str, np.ndarray] = {}
    if feature is not None:
        optional = [name for name in schema.ITEM_COLUMNS if name != "item_id"]
        table = schema.read_columns(feature, ["item_id"], optional)
        high = len(tags) - 1 if tags is not None else _largest_id(table, feature)
        ids = _item_ids(table, feature, low=0, high=high)
        if tags is None:
            _require(table, "item_tags", feature)
            tags = _tags(table, ids, feature, n_items=high)
        columns = _item_columns(table, ids, feature, n_items=high)
    n_items = len(tags) - 1
    levels = {
        name: columns[name] if name in columns else _levels_from_rows(folder, name, n_items)
        for name in ("likes_level", "views_level")
    }
    return Catalog(
        tags=tags,
        titles=columns.get("item_title", np.full(n_items + 1, "", dtype=object)),
        covers=_covers(folder, n_items),
        text_features=columns.get(schema.TEXT_COLUMN),
        image_features=columns.get(schema.IMAGE_COLUMN),
        provided=_provided(folder),
        **levels,
    )


def load_impressions(path: Path, n_items: int, labelled: bool) -> Impressions:
    """Read one split; without `labelled` a missing or constant label column becomes None."""
    required = ["user_id", "item_seq", "item_id", *(["label"] if labelled else [])]
    optional = [] if labelled else ["label"]
    users, targets, label_parts, items, lengths = [], [], [], [], []
    first_row = 0
    for batch in schema.iterate_columns(path, required, optional, batch_rows=1 << 17):
        at = {"first_row": first_row}
        users.append(schema.integers(batch["user_id"], path, "user_id", **at))
        target = schema.integers(batch["item_id"], path, "item_id", low=1, high=n_items, **at)
        targets.append(target.astype(np.int32))
        flat, width = schema.integer_lists(batch["item_seq"], path, "item_seq", high=n_items, **at)
        rows = np.repeat(np.arange(len(width)), width)
        items.append(flat[flat > 0].astype(np.int32))
        lengths.append(np.bincount(rows[flat > 0], minlength=len(width)))
        if labelled:
            label_parts.append(schema.labels(batch["label"], path, **at))
        elif "label" in batch.schema.names:
            label_parts.append(batch["label"].to_numpy(zero_copy_only=False).astype(np.float32))
        first_row += batch.num_rows
    if not first_row:
        raise DataError(f"{path} has no rows: a split needs at least one impression.")
    start, end, flat = share_histories(np.concatenate(items), np.concatenate(lengths))
    label = np.concatenate(label_parts) if label_parts else None
    if label is not None and not labelled and set(np.unique(label)) != {0.0, 1.0}:
        label = None
    user = np.concatenate(users)
    return Impressions(user, np.concatenate(targets), label, start, end, flat)


def share_histories(
    items: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Store equal histories once: history_start, history_end [n] and history_items.

    items: int32 [total], the rows' histories one after another; lengths: int64 [n].
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    hashes = _hash_slices(items, starts, ends)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    representative = first[group]
    # Two different histories may have one hash: such rows keep their own copy.
    same = lengths == lengths[representative]
    within = np.arange(len(items)) - np.repeat(starts, lengths)
    candidate = np.repeat(np.where(same, starts[representative], starts), lengths) + within
    differs = items != items[candidate]
    same[np.repeat(np.arange(len(lengths)), lengths)[differs]] = False
    representative = np.where(same, representative, np.arange(len(lengths)))
    kept = np.zeros(len(lengths), dtype=bool)
    kept[representative] = True
    new_end = np.cumsum(np.where(kept, lengths, 0))
    end = new_end[representative]
    return end - lengths, end, items[np.repeat(kept, lengths)]


def history_hashes(rows: Impressions) -> np.ndarray:
    """A 64-bit hash of each row's history, uint64 [n]: equal histories have equal hashes."""
    slices, group = np.unique(
        np.stack([rows.history_start, rows.history_end]), axis=1, return_inverse=True
    )
    starts, lengths = slices[0], slices[1] - slices[0]
    ends = np.cumsum(lengths)
    flat = slice_positions(starts, lengths)
    return _hash_slices(rows.history_items[flat], ends - lengths, ends)[group.ravel()]


def slice_positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions in a flat array that slices cover, one slice after another: int64 [total]."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _hash_slices(items: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Hash consecutive slices by summing well-mixed (position, item) words modulo 2^64."""
    position = np.arange(len(items), dtype=np.uint64)
    position -= np.repeat(starts, ends - starts).astype(np.uint64)
    word = (position << np.uint64(32)) + items.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    # The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(word ^ (word >> np.uint64(31)))])
    return total[ends] - total[starts]


def _item_ids(table: pa.Table, path: Path, *, low: int, high: int) -> np.ndarray:
    ids = schema.integers(table["item_id"], path, "item_id", low=low, high=high)
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
    ids = schema.integers(table["item_id"], path, "item_id", low=0)
    # Ids number the rows of a table, so a huge one is an error and not a size to allocate.
    if len(ids) and ids.max() > 2 * len(ids):
        row = int(ids.argmax())
        raise DataError(
            f"{path}, column item_id, row {row}: found {ids[row]}, expected ids numbered from 1 "
            f"for {len(ids)} items."
        )
    return int(ids.max(initial=0))


def _tags(table: pa.Table, ids: np.ndarray, path: Path, n_items: int) -> np.ndarray:
    tags = schema.matrix(table["item_tags"], path, "item_tags", np.int64)
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
            values = schema.integers(table[name], path, name, low=0, high=high).astype(np.int8)
            columns[name] = _by_id(ids, values, n_items)
    for name in (schema.TEXT_COLUMN, schema.IMAGE_COLUMN):
        if name in table.column_names:
            values = schema.matrix(table[name], path, name, np.float32)
            _check_padding(ids, values, path, name)
            columns[name] = _by_id(ids, values, n_items)
    if "item_title" in table.column_names:
        titles = np.full(n_items + 1, "", dtype=object)
        titles[ids] = table["item_title"].fill_null("").to_numpy()
        columns["item_title"] = titles
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
        if path is None or column not in schema.open_parquet(path).schema_arrow.names:
            continue
        table = schema.read_columns(path, ["item_id", column])
        targets = schema.integers(table["item_id"], path, "item_id", low=1, high=n_items)
        high = schema.LEVELS - 1
        levels[targets] = schema.integers(table[column], path, column, low=0, high=high)
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
        and 1 <= int(path.stem) <= n_items
    }


def _provided(folder: Path) -> dict[str, Path]:
    columns = {}
    for name in ("item_emb.parquet", "item_info.parquet"):
        path = schema.find_file(folder, name)
        if path is not None:
            for column in schema.open_parquet(path).schema_arrow:
                if pa.types.is_nested(column.type) and column.name != "item_tags":
                    columns.setdefault(column.name, path)
    return columns


def _require(table: pa.Table, column: str, path: Path) -> None:
    if column not in table.column_names:
        raise DataError(
            f"{path} has no column {column}, and there is no item_info.parquet to take it from."
        )


def _with_truth(folder: Path, splits: dict[str, Impressions]) -> dict[str, Impressions]:
    """Attach truth.parquet's click probabilities (simulated data only)."""
    path = schema.find_file(folder, "truth.parquet")
    if path is None:
        return splits
    table = schema.read_columns(path, list(schema.TRUTH_COLUMNS)).to_pandas()
    wrong = np.flatnonzero(~table["probability"].between(0, 1))
    if len(wrong):
        found = table["probability"][wrong[0]]
        raise DataError(
            f"{path}, column probability, row {wrong[0]}: found {found}, expected 0 to 1."
        )
    result = {}
    for name, rows in splits.items():
        truth = table[table["split"] == name].sort_values("row")
        if not np.array_equal(truth["row"], np.arange(len(rows))):
            raise DataError(
                f"{path} has {len(truth)} rows for split {name}, expected each of its "
                f"{len(rows)} rows once: make the demo data again."
            )
        probability = truth["probability"].to_numpy(np.float64)
        result[name] = Impressions(**(vars(rows) | {"probability": probability}))
    return result
