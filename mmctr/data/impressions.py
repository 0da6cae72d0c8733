"""Impressions: rows of user, target and label, with ragged histories.

Histories are slices of one flat array, stored once however many rows share them.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from mmctr.bars import bar_if_long
from mmctr.data import parquet, schema
from mmctr.data.address import Address
from mmctr.data.columns import Column, room
from mmctr.data.fields import Field, column_of
from mmctr.errors import DataError

BLOCK = 1 << 22  # rows, or clicks, that are hashed or compared at once


@dataclass(frozen=True)
class Impressions:
    """Rows of (user, target, label) with ragged histories.

    user: int64 [n]. target: int32 [n]. label: float32 [n] of 0 and 1, or None. history_start,
    history_end: int64 [n], slices of history_items: int32 [total], oldest click first.
    probability: float64 [n], the true click probability of simulated data, or None. time: int64
    [n], nanoseconds since 1970, or None where the files have no times. levels: int8 [n, 2], the
    target's likes_level and views_level as of that time; None where the catalog's are all there is.
    impression: int64 [n], alike for items that were shown together, or None. fields: int32
    [n, fields], codes of what is known of the user and the context of a row.
    """

    user: np.ndarray
    target: np.ndarray
    label: np.ndarray | None
    history_start: np.ndarray
    history_end: np.ndarray
    history_items: np.ndarray
    probability: np.ndarray | None = None
    time: np.ndarray | None = None
    levels: np.ndarray | None = None
    impression: np.ndarray | None = None
    fields: np.ndarray | None = None

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
        parts = {
            name: values if values is None or name == "history_items" else values[rows]
            for name, values in vars(self).items()
        }
        return Impressions(**parts)


def load_impressions(
    path: Path | Address, n_items: int, labelled: bool, context: Sequence[Field] = ()
) -> Impressions:
    """Read one split; without `labelled` a missing or constant label column becomes None.

    context: fields whose columns the split has; users' fields are not among them. Large arrays are
    mapped from files without a name, so that a split need not fit in memory.
    """
    folder = path.folder if isinstance(path, Address) else path.parent
    found = _read(path, n_items, labelled, context, folder)
    label = found.setdefault("label", None)
    if not labelled and label is not None:
        found["label"] = label.astype(np.float32) if set(np.unique(label)) == {0.0, 1.0} else None
    items, lengths, history = (found.pop(name) for name in ("items", "lengths", "history"))
    number, flat, lengths = distinct_histories(items, lengths, folder)
    ends, start, end = room(len(lengths), folder), Column(folder), Column(folder)
    np.cumsum(lengths, out=ends)
    for rows in row_blocks(len(history)):
        distinct = number[history[rows]]
        start.append(ends[distinct] - lengths[distinct])
        end.append(ends[distinct])
    return Impressions(
        history_start=start.whole(), history_end=end.whole(), history_items=flat, **found
    )


def _read(
    path: Path | Address, n_items: int, labelled: bool, context: Sequence[Field], folder: Path
) -> dict[str, np.ndarray]:
    """The columns of a split by field; the number of each row's history, their items and lengths.

    Histories that stand together are shared; those that are far from one another not yet.
    """
    kinds = {column_of(field.name): field.kind for field in context}
    required = ["user_id", "item_seq", "item_id", *(["label"] if labelled else []), *kinds]
    optional = [*([] if labelled else ["label"]), "time", "impression_id"]
    # Columns grow with what is read: the number of rows that a file claims to have may be a lie.
    columns: dict[str, Column] = defaultdict(partial(Column, folder))
    n_histories = 0
    for first_row, batch in parquet.iterate_columns(path, required, optional, schema.KINDS | kinds):
        at = {"first_row": first_row}
        part = {"user": parquet.integers(batch["user_id"], path, "user_id", **at)}
        shown = parquet.integers(batch["item_id"], path, "item_id", low=1, high=n_items, **at)
        part["target"] = shown.astype(np.int32)
        flat, width = parquet.integer_lists(batch["item_seq"], path, "item_seq", high=n_items, **at)
        clicks = np.flatnonzero(flat)
        length = np.diff(np.searchsorted(clicks, np.append(0, np.cumsum(width))))
        number, part["items"], part["lengths"] = distinct_histories(
            flat[clicks].astype(np.int32), length, folder
        )
        part["history"] = number + n_histories
        n_histories += len(part["lengths"])
        if labelled:
            part["label"] = parquet.labels(batch["label"], path, **at)
        elif "label" in batch.schema.names:
            # Of another type where values are missing: a column has one.
            part["label"] = batch["label"].to_numpy(zero_copy_only=False).astype(np.float64)
        for field, name in (("time", "time"), ("impression", "impression_id")):
            if name in batch.schema.names:
                part[field] = parquet.integers(batch[name], path, name, **at)
        if context:
            codes = [field.codes(batch[column_of(field.name)]) for field in context]
            part["fields"] = np.stack(codes, axis=1)
        for field, values in part.items():
            columns[field].append(values)
    if not first_row + batch.num_rows:
        raise DataError(f"{path} has no rows: a split needs at least one impression.")
    return {field: column.whole() for field, column in columns.items()}


def with_truth(folder: Path, splits: dict[str, Impressions]) -> dict[str, Impressions]:
    """The splits with truth.parquet's click probabilities, which simulated data alone have."""
    if (path := schema.find_file(folder, "truth.parquet")) is None:
        return splits
    table = parquet.read_columns(path, list(schema.TRUTH_COLUMNS)).to_pandas()
    outside = ~table["probability"].between(0, 1).to_numpy()
    parquet.refuse(outside, path, "probability", table["probability"], "0 to 1")
    result = {}
    for name, rows in splits.items():
        truth = table[table["split"] == name].sort_values("row")
        if not np.array_equal(truth["row"], np.arange(len(rows))):
            raise DataError(
                f"{path} has {len(truth)} rows for split {name}, expected each of its "
                f"{len(rows)} rows once: make the demo data again."
            )
        result[name] = replace(rows, probability=truth["probability"].to_numpy(np.float64))
    return result


def joined(parts: Sequence[Impressions]) -> Impressions:
    """The rows of several parts, one part after another; a field that one lacks is None."""
    shifts = np.cumsum([0, *(len(part.history_items) for part in parts)])
    moved = [
        vars(
            replace(part, history_start=part.history_start + by, history_end=part.history_end + by)
        )
        for part, by in zip(parts, shifts, strict=False)
    ]
    columns = {name: [part[name] for part in moved] for name in moved[0]}
    return Impressions(
        **{
            name: None if any(v is None for v in values) else np.concatenate(values)
            for name, values in columns.items()
        }
    )


def distinct_histories(
    items: np.ndarray, lengths: np.ndarray, folder: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's number in the distinct histories, int64 [n], and their items and lengths.

    items: int32 [total], the rows' histories one after another; lengths: int64 [n]. folder: whose
    disk takes what is large.
    """
    starts, hashes = room(len(lengths), folder), room(len(lengths), folder, np.uint64)
    np.cumsum(lengths, out=starts)
    starts -= lengths
    for block in _told(lengths):
        hashes[block] = _hash_slices(items, starts[block], starts[block] + lengths[block])
    alike = _first_alike(hashes, folder)
    number, kept = room(len(lengths), folder), 0
    flat, widths = Column(folder), Column(folder)
    flat.append(items[:0])
    widths.append(lengths[:0])
    for block in _told(lengths):
        _part_unlike(alike, block, items, starts, lengths)
        first = alike[block] == np.arange(block.start, block.stop)
        number[block] = kept - 1 + np.cumsum(first)
        number[block] = number[alike[block]]
        kept += np.count_nonzero(first)
        clicks = slice(starts[block.start], starts[block.start] + lengths[block].sum())
        flat.append(items[clicks][np.repeat(first, lengths[block])])
        widths.append(lengths[block][first])
    return number, flat.whole(), widths.whole()


def _told(lengths: np.ndarray) -> Iterator[slice]:
    """The blocks of rows, with a bar if what is done with them takes long."""
    return bar_if_long(blocks(lengths), -(-lengths.sum() // BLOCK), "histories")


def _part_unlike(
    alike: np.ndarray, block: slice, items: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> None:
    """Let rows of a block have their own copy of a history that has another one's hash."""
    own = np.arange(block.start, block.stop)
    own = own[alike[block] < own]
    unlike = lengths[own] != lengths[alike[own]]
    alike[own[unlike]] = own[unlike]
    own = own[~unlike]
    width = lengths[own]
    mine, other = (items[slice_positions(starts[rows], width)] for rows in (own, alike[own]))
    unlike = np.repeat(own, width)[mine != other]
    alike[unlike] = unlike


def _first_alike(hashes: np.ndarray, folder: Path) -> np.ndarray:
    """The first row with each row's hash, int64 [n]; of few hashes at once, to sort no more."""
    alike, parts = room(len(hashes), folder), -(-len(hashes) // BLOCK)
    for part in range(parts):
        rows = np.concatenate(
            [
                block.start + np.flatnonzero(hashes[block] % np.uint64(parts) == part)
                for block in row_blocks(len(hashes))
            ]
        )
        _, first, group = np.unique(hashes[rows], return_index=True, return_inverse=True)
        alike[rows] = rows[first][group]
    return alike


def history_hashes(rows: Impressions) -> np.ndarray:
    """A 64-bit hash of each row's history, uint64 [n]: equal histories have equal hashes."""
    return _hash_slices(rows.history_items, rows.history_start, rows.history_end)


def target_in_history(rows: Impressions) -> np.ndarray:
    """Whether each row's target stands in its own history, bool [n]."""
    found, lengths = np.zeros(len(rows), dtype=bool), rows.history_length
    for block in bar_if_long(blocks(lengths), -(-lengths.sum() // BLOCK), "targets in histories"):
        width = lengths[block]
        clicks = rows.history_items[slice_positions(rows.history_start[block], width)]
        row = np.repeat(np.arange(block.start, block.stop), width)
        found[row[clicks == rows.target[row]]] = True
    return found


def slice_positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions in a flat array that slices cover, one slice after another: [total], of the
    starts' type."""
    before = np.cumsum(lengths, dtype=starts.dtype) - lengths
    positions = np.repeat(starts - before, lengths)
    positions += np.arange(len(positions), dtype=positions.dtype)
    return positions


def _hash_slices(items: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Hash slices by summing well-mixed (position, item) words modulo 2^64."""
    hashes = np.zeros(len(starts), dtype=np.uint64)
    lengths = ends - starts
    for block in _told(lengths):
        width = lengths[block]
        word = slice_positions(np.zeros_like(width), width).astype(np.uint64) << np.uint64(32)
        word += items[slice_positions(starts[block], width)].astype(np.uint64)
        word += np.uint64(0x9E3779B97F4A7C15)
        # Mixes by the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
        total = np.append(np.uint64(0), np.cumsum(pd.util.hash_array(word)))
        stop = np.cumsum(width)
        hashes[block] = total[stop] - total[stop - width]
    return hashes


def blocks(lengths: np.ndarray, clicks: int | None = None) -> Iterator[slice]:
    """Cut rows into slices of about so many clicks (BLOCK), so that temporaries stay small."""
    clicks = clicks or BLOCK
    for rows in row_blocks(len(lengths)):
        ends = np.cumsum(lengths[rows])
        cuts = np.searchsorted(ends, np.arange(clicks, ends[-1], clicks))
        for start, stop in pairwise(np.unique([0, *cuts, len(ends)]) + rows.start):
            yield slice(start, stop)


def row_blocks(rows: int) -> Iterator[slice]:
    """Cut so many rows into slices of BLOCK."""
    return (slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK))
