"""Impressions of files made by hand, and sharing of histories."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data import columns, impressions, parquet, schema
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import (
    Impressions,
    distinct_histories,
    history_hashes,
    joined,
    load_impressions,
)
from mmctr.errors import DataError
from tests.data.folders import (
    FILES,
    TRUTH,
    histories,
    load_changed,
    load_with_fields,
    write_folder,
)
from tests.fuzz.cases import limited_memory
from tests.fuzz.datasets import claiming


def test_padding_is_stripped_and_equal_histories_are_stored_once(tmp_path):
    rows = load_changed(tmp_path, {}).train
    assert histories(rows) == [[1], [1], [1, 2], []]
    assert rows.history_length.tolist() == [1, 1, 2, 0]
    assert rows.history_start[0] == rows.history_start[1]
    assert len(rows.history_items) == 3


def test_lists_of_unequal_lengths_and_batches_of_a_file(tmp_path, monkeypatch):
    """Rows and row numbers stay right when a file is read in several batches."""
    monkeypatch.setattr(parquet, "BATCH", 2)
    seqs = [[1], [], [2, 3], [0, 4], [1, 1, 1]]
    train = {
        "user_id": [1, 2, 3, 4, 5],
        "item_seq": seqs,
        "item_id": [1, 2, 3, 4, 1],
        "likes_level": None,
        "views_level": None,
        "label": [0, 1, 0, 1, 1],
    }
    rows = load_changed(tmp_path, {"train": train}).train
    assert histories(rows) == [[1], [], [2, 3], [4], [1, 1, 1]]
    assert rows.label.tolist() == [0, 1, 0, 1, 1]
    train["label"] = [0, 1, 0, 1, 2]
    with pytest.raises(DataError, match=r"train\.parquet, column label, row 4"):
        load_changed(tmp_path, {"train": train})


def test_histories_may_have_any_list_type(tmp_path):
    kind = pa.list_(pa.int32(), 3)
    train = {"item_seq": pa.array(FILES["train"]["item_seq"], kind)}
    assert histories(load_changed(tmp_path, {"train": train}).train) == [[1], [1], [1, 2], []]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (None, None),
        ([0, 0], None),
        ([1, 1], None),
        ([float("nan"), float("nan")], None),
        (pa.nulls(2), None),
        (pa.array([None, 1], pa.int8()), None),
        ([-1, -1], None),
        ([0, 1], [0, 1]),
    ],
)
def test_test_split_keeps_only_usable_labels(tmp_path, label, expected):
    two = {name: values * 2 for name, values in FILES["test"].items()}
    rows = load_changed(tmp_path, {"test": two | {"label": label}}).split("test")
    assert (None if rows.label is None else rows.label.tolist()) == expected


def test_labels_of_test_that_are_missing_in_a_later_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH", 2)
    monkeypatch.setattr(columns, "LARGE", 1)
    four = {name: values * 4 for name, values in FILES["test"].items()}
    for label, expected in (([0, 1, 1, 0], [0, 1, 1, 0]), ([0, 1, None, 1], None)):
        test = four | {"label": pa.array(label, pa.int8())}
        rows = load_changed(tmp_path, {"test": test}).split("test")
        assert (None if rows.label is None else rows.label.tolist()) == expected


def test_select_keeps_rows_and_order(tmp_path):
    data = load_changed(tmp_path, {"truth": TRUTH})
    rows = data.train.select(np.array([3, 0, 2]))
    assert rows.target.tolist() == [1, 2, 4]
    assert rows.label.tolist() == [1, 0, 0]
    assert histories(rows) == [[], [1], [1, 2]]
    assert rows.probability.tolist() == [0.4, 0.2, 0.3]
    assert len(rows) == 3


LISTS_OF_CLICKS = st.lists(st.lists(st.integers(1, 4), max_size=5), min_size=1, max_size=20)


def share(clicks):
    """Each row's shared history as a list, and the distinct ones in the order they are stored."""
    items = np.concatenate([np.array(row, dtype=np.int32) for row in clicks])
    number, flat, lengths = distinct_histories(
        items, np.array([len(row) for row in clicks]), Path()
    )
    distinct = [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]
    return [distinct[i] for i in number], distinct


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(1, 9))
def test_blocks_hold_all_rows_and_few_clicks(lengths, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impressions, "BLOCK", block)
        parts = [lengths[rows] for rows in impressions.blocks(np.array(lengths, dtype=int))]
    assert list(chain(*parts)) == lengths
    assert all(part and sum(part) <= block + max(lengths) for part in parts)


def constant_hash(items, starts, ends):
    """A hash by which all histories collide."""
    return np.zeros(len(starts), dtype=np.uint64)


@given(LISTS_OF_CLICKS, st.integers(1, 9))
def test_equal_histories_are_stored_once_in_order(clicks, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impressions, "BLOCK", block)
        shared, distinct = share(clicks)
    assert shared == clicks
    assert distinct == [list(row) for row in dict.fromkeys(map(tuple, clicks))]


@given(LISTS_OF_CLICKS, st.integers(1, 9))
def test_colliding_histories_keep_their_own_copy(clicks, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impressions, "BLOCK", block)
        patch.setattr(impressions, "_hash_slices", constant_hash)
        assert share(clicks)[0] == clicks


@pytest.mark.parametrize("collide", [False, True])
@given(
    clicks=LISTS_OF_CLICKS,
    batch=st.integers(1, 7),
    block=st.integers(1, 9),
    large=st.sampled_from([1, columns.LARGE]),
)
def test_histories_are_shared_across_batches_of_a_file(
    tmp_path_factory, collide, clicks, batch, block, large
):
    """Batches of a few rows, blocks of a few clicks and arrays on the disk give what is usual."""
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    ones = [1] * len(clicks)
    padded = [[0] * (5 - len(row)) + row for row in clicks]
    table = {"user_id": ones, "item_seq": padded, "item_id": ones, "label": ones}
    pq.write_table(pa.table(table), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "BATCH", batch)
        patch.setattr(impressions, "BLOCK", block)
        patch.setattr(columns, "LARGE", large)
        if collide:
            patch.setattr(impressions, "_hash_slices", constant_hash)
        rows = load_impressions(path, n_items=4, labelled=True)
    assert histories(rows) == clicks
    if not collide:
        distinct = dict.fromkeys(map(tuple, clicks))
        assert rows.history_items.tolist() == [item for row in distinct for item in row]


@st.composite
def overlapping_slices(draw):
    """Impressions whose histories are any slices of one flat array."""
    flat = np.array(draw(st.lists(st.integers(1, 3), max_size=12)), dtype=np.int32)
    bound = st.integers(0, len(flat))
    pairs = draw(st.lists(st.tuples(bound, bound).map(sorted), min_size=1, max_size=12))
    start, end = np.array(pairs, dtype=np.int64).T
    zeros = np.zeros(len(start), dtype=np.int32)
    return Impressions(zeros, zeros, None, start, end, flat)


@given(overlapping_slices(), st.integers(1, 9))
def test_history_hashes_are_equal_where_histories_are(rows, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impressions, "BLOCK", block)
        hashes = history_hashes(rows)
    expected = pd.factorize(pd.Series([tuple(row) for row in histories(rows)]))[0]
    assert pd.factorize(hashes)[0].tolist() == expected.tolist()


def test_history_hashes_of_no_rows(tmp_path):
    rows = load_changed(tmp_path, {}).train.select(np.array([], dtype=np.int64))
    assert len(history_hashes(rows)) == 0


def test_joined_rows_keep_what_all_parts_have(tmp_path):
    data = load_with_fields(tmp_path)
    parts = list(data.splits.values())
    rows = joined([parts[0], replace(parts[1], levels=None), parts[0].select(slice(0, 0))])
    assert histories(rows) == histories(parts[0]) + histories(parts[1])
    for name in ("user", "target", "label", "time", "impression", "fields"):
        found = getattr(rows, name)
        assert found.tolist() == np.concatenate([getattr(p, name) for p in parts[:2]]).tolist()
        assert found.dtype == getattr(parts[0], name).dtype
    assert rows.levels is None and rows.probability is None
    alone = joined(parts[:1])
    assert all(np.array_equal(v, getattr(parts[0], name)) for name, v in vars(alone).items())


def test_rows_of_the_demo_share_their_groups_history(tiny, tiny_folder):
    """Loading keeps what stands in the file, and stores each distinct history once."""
    table = pd.read_parquet(tiny_folder / schema.NESTED_FOLDER / "train.parquet")
    expected = [[item for item in row if item] for row in table["item_seq"]]
    assert histories(tiny.train) == expected
    distinct = set(map(tuple, expected))
    assert len(tiny.train.history_items) == sum(len(row) for row in distinct)


def test_a_claimed_number_of_rows_is_not_a_size(tmp_path):
    path = write_folder(tmp_path, nested=False) / "train.parquet"
    path.write_bytes(claiming(path.read_bytes(), 2**40))
    assert pq.ParquetFile(path).metadata.num_rows == 2**40
    with limited_memory():
        rows = Dataset.load(tmp_path).train
    assert rows.target.tolist() == FILES["train"]["item_id"]


def test_a_label_next_to_1_is_refused_and_not_rounded(tmp_path):
    with pytest.raises(
        DataError, match=r"train\.parquet, column label, row 1: found 1\.0000000001"
    ):
        load_changed(tmp_path, {"train": {"label": [0.0, 1.0000000001, 0.0, 1.0]}})
