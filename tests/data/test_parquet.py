"""The checks of single files and columns; whole folders are tested in test_dataset.py."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.data import parquet
from mmctr.errors import DataError

LIST_TYPES = [
    pa.list_(pa.int64()),
    pa.large_list(pa.int32()),
    pa.list_(pa.int16(), 2),
]


def write(path, **columns):
    """Write columns as a parquet file and return its path."""
    pq.write_table(pa.table(columns), path)
    return path


def test_read_columns_takes_required_and_existing_optional_ones(tmp_path):
    path = write(tmp_path / "a.parquet", item_id=[1, 2], item_title=["a", "b"], other=[0, 0])
    table = parquet.read_columns(path, ["item_id"], ["item_title", "likes_level"])
    assert table.to_pydict() == {"item_id": [1, 2], "item_title": ["a", "b"]}


def test_read_columns_of_a_file_without_rows(tmp_path):
    path = write(tmp_path / "a.parquet", item_id=pa.array([], pa.int64()))
    table = parquet.read_columns(path, ["item_id"])
    assert table.num_rows == 0
    assert table.column_names == ["item_id"]


def test_optional_column_of_nothing_but_nulls_counts_as_absent(tmp_path):
    path = write(tmp_path / "a.parquet", item_id=[1], label=pa.nulls(1))
    assert parquet.read_columns(path, ["item_id"], ["label"]).column_names == ["item_id"]


def test_missing_column_is_named_beside_those_there_are(tmp_path):
    path = write(tmp_path / "a.parquet", user_id=[1], target=[2])
    with pytest.raises(DataError, match=r"a\.parquet has no column item_id.*user_id, target"):
        parquet.read_columns(path, ["item_id"])


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("user_id", [1.5], "found double, expected whole numbers"),
        ("item_id", ["1"], "found string, expected whole numbers"),
        ("item_seq", [7], "found int64, expected lists of whole numbers"),
        ("item_seq", [[0.5]], "expected lists of whole numbers"),
        ("item_title", [3], "found int64, expected text"),
        ("label", ["yes"], "found string, expected numbers"),
        ("txt_emb_BERT", [["x"]], "expected lists of numbers"),
        ("item_emb_d128_v1", [0.5], "found double, expected lists of numbers"),
    ],
)
def test_wrong_types_are_named(tmp_path, column, values, expected):
    path = write(tmp_path / "a.parquet", **{column: values})
    with pytest.raises(DataError, match=rf"a\.parquet, column {column}: .*{expected}"):
        parquet.read_columns(path, [column])


@pytest.mark.parametrize("content", [b"", b"user_id,item_id\n1,2\n", None])
def test_unreadable_parquet_files_are_named(tmp_path, content):
    """An empty file, a text file and (None) a file cut off in the middle."""
    path = write(tmp_path / "a.parquet", user_id=list(range(1000)))
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        parquet.read_columns(path, ["user_id"])


def test_damage_behind_a_sound_footer_is_named(tmp_path):
    users = np.random.default_rng(0).integers(1 << 60, size=99)
    path = write(tmp_path / "a.parquet", user_id=users)
    content = bytearray(path.read_bytes())
    content[4:204] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet, column user_id, is damaged"):
        parquet.read_columns(path, ["user_id"])


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64()])
def test_integers_of_any_width_become_int64(tmp_path, kind):
    values = pa.array([0, 100, 3], kind)
    for column in (values, pa.chunked_array([values[:1], values[1:]])):
        result = parquet.integers(column, tmp_path, "user_id")
        assert result.dtype == np.int64
        assert result.tolist() == [0, 100, 3]


@pytest.mark.parametrize(
    ("values", "limits", "message"),
    [
        ([1, 2, 11], {"low": 0, "high": 10}, "row 12: found 11, expected a number from 0 to 10"),
        ([1, -1, 2], {"low": 0, "high": 10}, "row 11: found -1"),
        ([1, 0], {"low": 1}, "row 11: found 0, expected at least 1"),
        ([None, 4], {}, "row 10: found a missing value"),
        (pa.array([5, 2**64 - 1], pa.uint64()), {}, "row 11: found 18446744073709551615"),
    ],
)
def test_integers_name_the_first_wrong_row(tmp_path, values, limits, message):
    values = pa.array(values) if isinstance(values, list) else values
    with pytest.raises(DataError, match=f"column likes_level, {message}"):
        parquet.integers(values, tmp_path, "likes_level", first_row=10, **limits)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.float32(), pa.float64()])
def test_labels_become_float32(tmp_path, kind):
    result = parquet.labels(pa.array([0, 1, 1], kind), tmp_path)
    assert result.dtype == np.float32
    assert result.tolist() == [0, 1, 1]


@pytest.mark.parametrize("wrong", [2, -1, 0.5, float("nan"), float("inf"), None])
def test_labels_other_than_0_and_1_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match=r"column label, row 7: found"):
        parquet.labels(pa.array([0.0, 1.0, wrong]), tmp_path, first_row=5)


@pytest.mark.parametrize("kind", LIST_TYPES)
def test_integer_lists_of_every_list_type_and_of_slices(tmp_path, kind):
    values = pa.array([[9, 9], [1, 2], [3, 4]], kind)[1:]
    flat, lengths = parquet.integer_lists(values, tmp_path, "item_seq", high=4)
    assert flat.tolist() == [1, 2, 3, 4]
    assert lengths.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1], [], [5, 7, 2]], "row 102: found 7, expected a number from 0 to 6"),
        ([[], [-3], [1]], "row 101: found -3"),
        ([[1], None], "row 101: found a missing value"),
        ([[], [1, 2], [], [3, None]], "row 103: found a missing value"),
    ],
)
def test_integer_lists_name_the_first_wrong_row(tmp_path, values, message):
    with pytest.raises(DataError, match=f"column item_seq, {message}"):
        parquet.integer_lists(
            pa.array(values, pa.list_(pa.int64())), tmp_path, "item_seq", high=6, first_row=100
        )


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2)]
)
def test_matrix_joins_chunks_and_slices(tmp_path, kind):
    values = pa.array([[9, 9], [1, 2], [3, 4], [5, 6]], kind)
    chunks = pa.chunked_array([values[1:3], values[3:]])
    result = parquet.matrix(chunks, tmp_path, "txt_emb_BERT", np.float32)
    assert result.dtype == np.float32
    assert result.tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1.0], "found 1 values, expected 2 as in row 0"),
        ([1.0, 2.0, 3.0], "found 3 values, expected 2 as in row 0"),
        ([], "found 0 values, expected 2 as in row 0"),
        ([float("nan"), 1.0], "found NaN or infinity"),
        ([1.0, float("inf")], "found NaN or infinity"),
        ([float("inf"), -float("inf")], "found NaN or infinity"),
        ([1.0, None], "found a missing value"),
        (None, "found a missing value"),
    ],
)
def test_matrix_names_the_wrong_row_of_a_later_chunk(tmp_path, wrong, message):
    chunks = pa.chunked_array([[[0.0, 0.0], [1.0, 2.0]], [[3.0, 4.0], wrong]])
    with pytest.raises(DataError, match=f"column txt_emb_BERT, row 3: {message}"):
        parquet.matrix(chunks, tmp_path, "txt_emb_BERT", np.float32)


def test_matrix_of_empty_lists_is_refused(tmp_path):
    chunks = pa.chunked_array([pa.array([[], []], pa.list_(pa.float32()))])
    with pytest.raises(DataError, match=r"column txt_emb_BERT, row 0: found 0 values"):
        parquet.matrix(chunks, tmp_path, "txt_emb_BERT", np.float32)
