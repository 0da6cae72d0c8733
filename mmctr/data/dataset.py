"""Dataset = Catalog + Impressions (train, valid, test), loaded from the challenge's files.

An item's id is its row number everywhere; row 0 is padding and always zero. Histories are ragged:
slices of one flat array, stored once however many rows share them.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from mmctr.data import cache, schema
from mmctr.errors import DataError

BATCH = 1 << 16  # rows of a file that are decoded at once
BLOCK = 1 << 22  # clicks that are hashed or compared at once


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
        table = schema.read_columns(path, ["item_id"], vectors=column)
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
        """Read and validate a folder; DataError names the file, column and row at fault.

        Large arrays are memory-mapped from the folder's cache once their files were read.
        """
        folder = existing_folder(folder)
        fingerprint = files_fingerprint(folder)
        cached = cache.read(folder, fingerprint)
        parts = cached or _read_parts(folder)
        catalog = _catalog(folder, parts["catalog"])
        splits = {name: Impressions(**parts[name]) for name in schema.SPLITS if name in parts}
        dataset = cls(folder, catalog, _with_truth(folder, splits))
        # Files that changed while they were read must not be remembered by what they were before.
        if not cached and cache.pays(parts) and files_fingerprint(folder) == fingerprint:
            cache.write(folder, fingerprint, parts)
        # That of what was loaded, whatever the files hold when somebody asks for it.
        vars(dataset)["fingerprint"] = fingerprint
        return dataset

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
        return files_fingerprint(self.folder)

    @cached_property
    def negative_sampling(self) -> str | None:
        """How mmctr data import drew the train negatives; None if they were really shown."""
        path = schema.find_file(self.folder, "train.parquet")
        sampling = schema.metadata(path, schema.NEGATIVES).decode(errors="replace")
        known = get_args(schema.Sampling)
        if sampling not in ("", *known):
            raise DataError(
                f"{path} has metadata {schema.NEGATIVES.decode()} {sampling!r}, expected one of "
                f"{', '.join(known)}: import the log again."
            )
        return sampling or None

    @cached_property
    def encoders(self) -> dict[str, dict[str, object]]:
        """What is known of the encoders that made the features, by column; mostly nothing."""
        path = schema.find_file(self.folder, "item_feature.parquet")
        found = schema.metadata(path, schema.ENCODERS, b"{}")
        try:
            return dict(json.loads(found))
        except (ValueError, TypeError, RecursionError) as error:
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

    def repeated_rows(self, earlier: str = "train", later: str = "valid") -> int:
        """How many rows of one split also stand in another: same user, target and history."""
        first, second = self.split(earlier), self.split(later)
        # Only rows of the same users can be repeated: hash no others, train may be huge.
        seen = np.flatnonzero(pd.Index(first.user).isin(second.user))
        known, asked = (
            pd.MultiIndex.from_arrays([rows.user, rows.target, history_hashes(rows)])
            for rows in (first.select(seen), second)
        )
        return int(asked.isin(known).sum())


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


def files_fingerprint(folder: Path) -> str:
    """SHA-256 over the contents of a dataset's parquet files, its first 16 digits."""
    paths = {name: schema.find_file(folder, name) for name in schema.FILES}
    found = {name: path for name, path in paths.items() if path is not None}
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as threads:  # hashing does not hold the interpreter's lock
        for name, content in zip(found, threads.map(_content_digest, found.values()), strict=True):
            digest.update(name.encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def load_catalog(folder: Path) -> Catalog:
    """Read item_info.parquet, item_feature.parquet and item_images/, as far as they exist."""
    return _catalog(folder, _item_arrays(folder))


def load_impressions(path: Path, n_items: int, labelled: bool) -> Impressions:
    """Read one split; without `labelled` a missing or constant label column becomes None."""
    required = ["user_id", "item_seq", "item_id", *(["label"] if labelled else [])]
    optional = [] if labelled else ["label"]
    # Arrays grow with what is read: the number of rows that a file claims to have may be a lie.
    user, target, label, history, items, lengths = [], [], [], [], [], []
    n_histories, row = 0, 0
    for batch in schema.iterate_columns(path, required, optional, batch_rows=BATCH):
        at = {"first_row": row}
        user.append(schema.integers(batch["user_id"], path, "user_id", **at))
        shown = schema.integers(batch["item_id"], path, "item_id", low=1, high=n_items, **at)
        target.append(shown.astype(np.int32))
        flat, width = schema.integer_lists(batch["item_seq"], path, "item_seq", high=n_items, **at)
        clicks = np.flatnonzero(flat)
        length = np.diff(np.searchsorted(clicks, np.append(0, np.cumsum(width))))
        # Rows that share a history mostly stand together, so that few histories are left to join.
        number, flat, length = distinct_histories(flat[clicks].astype(np.int32), length)
        history.append(number + n_histories)
        items.append(flat)
        lengths.append(length)
        if labelled:
            label.append(schema.labels(batch["label"], path, **at))
        elif "label" in batch.schema.names:
            label.append(batch["label"].to_numpy(zero_copy_only=False))
        n_histories += len(length)
        row += batch.num_rows
    if not row:
        raise DataError(f"{path} has no rows: a split needs at least one impression.")
    # The parts are let go one column after another.
    user, target = np.concatenate(user), np.concatenate(target)
    label = np.concatenate(label) if label else None
    if not labelled and label is not None:
        label = label.astype(np.float32) if set(np.unique(label)) == {0.0, 1.0} else None
    items, lengths = np.concatenate(items), np.concatenate(lengths)
    number, flat, length = distinct_histories(items, lengths)
    history = number[np.concatenate(history)]
    end = np.cumsum(length)[history]
    return Impressions(user, target, label, end - length[history], end, flat)


def distinct_histories(
    items: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's number in the distinct histories, int64 [n], and their items and lengths.

    items: int32 [total], the rows' histories one after another; lengths: int64 [n].
    """
    ends, rows = np.cumsum(lengths), np.arange(len(lengths))
    starts = ends - lengths
    hashes = _hash_slices(items, starts, ends)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    alike = first[group]
    # Two different histories may have one hash: such rows keep their own copy.
    alike = np.where(lengths == lengths[alike], alike, rows)
    later = np.flatnonzero(alike < rows)
    for block in _blocks(lengths[later]):
        own, width = later[block], lengths[later[block]]
        other = slice_positions(starts[alike[own]], width)
        differs = items[slice_positions(starts[own], width)] != items[other]
        unlike = np.repeat(own, width)[differs]
        alike[unlike] = unlike
    kept = alike == rows
    number = (np.cumsum(kept) - 1)[alike]
    return number, items[np.repeat(kept, lengths)], lengths[kept]


def history_hashes(rows: Impressions) -> np.ndarray:
    """A 64-bit hash of each row's history, uint64 [n]: equal histories have equal hashes."""
    return _hash_slices(rows.history_items, rows.history_start, rows.history_end)


def target_in_history(rows: Impressions) -> np.ndarray:
    """Whether each row's target stands in its own history, bool [n]."""
    found, lengths = np.zeros(len(rows), dtype=bool), rows.history_length
    for block in _blocks(lengths):
        width = lengths[block]
        clicks = rows.history_items[slice_positions(rows.history_start[block], width)]
        row = np.repeat(np.arange(block.start, block.stop), width)
        found[row[clicks == rows.target[row]]] = True
    return found


def slice_positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions in a flat array that slices cover, one slice after another: int64 [total]."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _hash_slices(items: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Hash slices by summing well-mixed (position, item) words modulo 2^64."""
    hashes = np.zeros(len(starts), dtype=np.uint64)
    lengths = ends - starts
    for block in _blocks(lengths):
        width = lengths[block]
        word = slice_positions(np.zeros_like(width), width).astype(np.uint64) << np.uint64(32)
        word += items[slice_positions(starts[block], width)].astype(np.uint64)
        word += np.uint64(0x9E3779B97F4A7C15)
        # The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total = np.append(np.uint64(0), np.cumsum(word ^ (word >> np.uint64(31))))
        stop = np.cumsum(width)
        hashes[block] = total[stop] - total[stop - width]
    return hashes


def _blocks(lengths: np.ndarray) -> Iterator[slice]:
    """Cut rows into slices of about BLOCK clicks, so that temporaries stay small."""
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(BLOCK, ends[-1], BLOCK)) if len(ends) else []
    for start, stop in pairwise(np.unique([0, *cuts, len(lengths)])):
        yield slice(start, stop)


def _content_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(
            f"{path} is not a readable parquet file ({error.strerror or error}): "
            "write or download it again."
        ) from error


def _read_parts(folder: Path) -> cache.Parts:
    """The arrays of the catalog and of each split, by field, read and validated."""
    parts = {"catalog": _item_arrays(folder)}
    n_items = len(parts["catalog"]["tags"]) - 1
    for name in schema.SPLITS:
        path = schema.find_file(folder, f"{name}.parquet")
        if path is not None:
            parts[name] = vars(load_impressions(path, n_items, labelled=name != "test"))
        elif name != "test":
            raise DataError(
                f"{folder} has no {name}.parquet, neither there nor in "
                f"{schema.NESTED_FOLDER}/: choose the folder of a dataset."
            )
    return parts


def _catalog(folder: Path, arrays: dict[str, np.ndarray | None]) -> Catalog:
    """Arrays, with what is quickly found: titles, covers and names of ready-made embeddings."""
    n_items = len(arrays["tags"]) - 1
    return Catalog(
        titles=_titles(folder, n_items),
        covers=_covers(folder, n_items),
        provided=_provided(folder),
        **arrays,
    )


def _item_arrays(folder: Path) -> dict[str, np.ndarray | None]:
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
    table = schema.read_columns(path, ["item_id"], ["item_title"]) if path else None
    if table is not None and "item_title" in table.column_names:
        ids = _item_ids(table, path, low=0, high=n_items)
        titles[ids] = table["item_title"].fill_null("").to_numpy()
    return titles


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
        at = {"first_row": 0}
        for batch in schema.iterate_columns(path, ["item_id", column], batch_rows=BATCH):
            target = schema.integers(batch["item_id"], path, "item_id", low=1, high=n_items, **at)
            high = schema.LEVELS - 1
            levels[target] = schema.integers(batch[column], path, column, low=0, high=high, **at)
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
