"""Columns that lie on the disk hold what one in memory holds, wherever there is room."""

import errno
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmctr.data import columns, impressions, parquet
from mmctr.data.columns import Column, room
from mmctr.data.impressions import load_impressions

KINDS = st.sampled_from([np.int8, np.int32, np.int64, np.float32])
WIDTHS = st.sampled_from([(), (1,), (3,)])


@st.composite
def parts_of_a_column(draw):
    """A few arrays of one type and width, some of them empty."""
    kind, row = draw(KINDS), draw(WIDTHS)
    return [
        draw(arrays.arrays(kind, (draw(st.integers(0, 4)), *row), elements=st.integers(-9, 9)))
        for _ in range(draw(st.integers(1, 5)))
    ]


def filled(folder, parts):
    """A column of these parts."""
    column = Column(folder)
    for part in parts:
        column.append(part)
    return column


@given(parts=parts_of_a_column(), large=st.sampled_from([1, 20, 1 << 20]))
def test_a_column_is_its_parts_joined(tmp_path_factory, parts, large):
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "LARGE", large)
        column = filled(folder, parts)
        whole = column.whole()
    expected = np.concatenate(parts)
    np.testing.assert_array_equal(whole, expected)
    assert whole.dtype == expected.dtype
    assert bool(column.file) == (expected.nbytes >= large), "on the disk from so many bytes on"


def test_what_is_on_the_disk_has_no_name_and_is_changed_in_memory_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "LARGE", 1)
    column = filled(tmp_path, [np.arange(5), np.arange(3)])
    assert not list(tmp_path.iterdir()), "nothing stays behind, however this process ends"
    first, second = column.whole(), column.whole()
    torch.from_numpy(first).zero_()
    assert not first.any()
    assert second.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    del column
    assert second.sum() == 13, "the file outlives the column"


def test_a_folder_that_cannot_be_written_takes_the_place_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "LARGE", 1)
    column = filled(tmp_path / "missing", [np.arange(5)])
    assert column.file
    assert column.whole().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("full_from", [0, 1, 2])
def test_a_full_disk_means_memory(tmp_path, monkeypatch, full_from):
    """Wherever it begins, half of a part written: nothing is lost or twice."""
    monkeypatch.setattr(columns, "LARGE", 1)
    written = []

    class Full(np.ndarray):
        def tofile(self, file):
            if len(written) == full_from:
                np.asarray(self)[: len(self) // 2].tofile(file)
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(self)
            np.asarray(self).tofile(file)

    parts = [np.arange(4) + start for start in (0, 10, 20, 30)]
    column = filled(tmp_path, [part.view(Full) for part in parts])
    assert not column.file
    assert column.whole().tolist() == np.concatenate(parts).tolist()


def test_an_array_that_the_disk_has_no_room_for_is_in_memory(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(columns, "LARGE", 1)
    assert isinstance(room(3, tmp_path).base, np.memmap)
    monkeypatch.setattr(columns.os, "posix_fallocate", full)
    array = room(3, tmp_path, np.int32)
    array[:] = 7
    assert array.base is None
    assert array.tolist() == [7, 7, 7]


def test_a_split_larger_than_memory_is_read(tmp_path, monkeypatch):
    """Of a split's bytes few are in memory at once, and they are those of one read in memory."""
    rng, n_rows = np.random.default_rng(1), 120_000
    lengths = rng.integers(0, 12, n_rows // 4).repeat(4)  # of a click and its negatives
    flat = rng.integers(1, 100, lengths.sum(), dtype=np.int32)
    path = tmp_path / "train.parquet"
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    ones = np.ones(n_rows, dtype=np.int64)
    names = ("user_id", "item_id", "label", "time", "impression_id")
    table = dict.fromkeys(names, ones) | {
        "item_seq": pa.ListArray.from_arrays(offsets, flat),
    }
    pq.write_table(pa.table(table), path)
    expected = load_impressions(path, n_items=100, labelled=True)
    size = sum(array.nbytes for array in vars(expected).values() if array is not None)
    for module, name, value in (
        (columns, "LARGE", 1 << 12),
        (impressions, "BLOCK", 1 << 11),
        (parquet, "BATCH", 1 << 10),
    ):
        monkeypatch.setattr(module, name, value)
    tracemalloc.start()
    found = load_impressions(path, n_items=100, labelled=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(vars(found)[name], array, err_msg=name)
    assert peak < size / 5
