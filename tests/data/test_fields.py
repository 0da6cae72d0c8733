"""Vocabularies, codes, and the files that hold them."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data.dataset import Dataset, check
from mmctr.data.fields import Field, as_json, load_fields
from mmctr.errors import DataError
from mmctr.files import write_json
from tests.data.folders import write_folder

FIELDS = [
    Field("age", "user", borders=(18.0, 65.0)),
    Field("device", "context", values=("phone", "tv")),
    Field("age", "context", values=()),
    Field("brand", "item", values=("x",)),
]


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), unique=True, max_size=6),
    st.lists(st.none() | st.floats(), min_size=1, max_size=20),
)
def test_a_numbers_code_counts_the_borders_it_reached(borders, values):
    field = Field("n", "item", borders=tuple(sorted(borders)))
    found = field.codes(pa.array(values, pa.float64()))
    for value, code in zip(values, found, strict=True):
        there = value is not None and math.isfinite(value)
        assert code == (1 + sum(border <= value for border in borders) if there else 0)
    assert found.max() < field.size == len(field.labels())


@given(
    st.lists(st.text(min_size=1), unique=True, max_size=6),
    st.lists(st.none() | st.text(max_size=2), min_size=1, max_size=20),
)
def test_a_categorys_code_is_its_place(known, values):
    values = [*values, *known]
    field = Field("c", "item", values=tuple(known))
    found = field.codes(pa.chunked_array([values], pa.string()))
    assert found.tolist() == [known.index(v) + 1 if v in known else 0 for v in values]
    assert field.size == len(field.labels()) == 1 + len(known)


def folder_with_fields(tmp_path):
    changes = {
        "train": {"field_device": ["tv", "car", None, "phone"], "field_age": ["a"] * 4},
        "valid": {"field_device": ["tv", "phone"], "field_age": ["a"] * 2},
        "test": {"field_device": ["tv"], "field_age": ["a"]},
    }
    write_folder(tmp_path, changes)
    write_json(tmp_path / "fields.json", as_json(FIELDS))
    tables = {"user": {"user_id": [9, 7], "field_age": [70.0, 18.0]}}
    tables["item"] = {"item_id": [3, 1], "field_brand": ["x", "y"]}
    for owner, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"{owner}_fields.parquet")
    return tmp_path


def test_rows_and_items_have_their_codes(tmp_path):
    dataset = Dataset.load(folder_with_fields(tmp_path))
    assert [(field.owner, field.name) for field in dataset.row_fields] == [
        ("user", "age"),
        ("context", "device"),
        ("context", "age"),
    ]
    # Users 7, 7, 8, 8; the table has no user 8.
    assert dataset.train.fields.tolist() == [[2, 2, 0], [2, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert dataset.valid.fields.tolist() == [[2, 2, 0], [3, 1, 0]]
    assert dataset.split("test").fields.tolist() == [[0, 2, 0]]
    assert dataset.catalog.field_codes.tolist() == [[0], [0], [0], [1], [0]]
    assert dataset.train.fields.dtype == dataset.catalog.field_codes.dtype == np.int32


@pytest.mark.parametrize("name", ["fields.json", "item_fields.parquet", "user_fields.parquet"])
def test_a_field_file_is_part_of_the_fingerprint(tmp_path, name):
    before = Dataset.load(folder_with_fields(tmp_path)).fingerprint
    if name == "fields.json":
        write_json(tmp_path / name, as_json(FIELDS[:-1]))
    else:
        path = tmp_path / name
        pq.write_table(pq.read_table(path).slice(1), path)
    assert Dataset.load(tmp_path).fingerprint != before


GOOD = {"name": "a", "owner": "item", "values": ["x"], "borders": None}


@pytest.mark.parametrize(
    "value",
    [
        {},
        [GOOD | {"values": None}],
        [GOOD | {"borders": [1.0]}],
        [GOOD | {"values": None, "borders": [2.0, 1.0]}],
        [GOOD | {"values": None, "borders": [1.0, 1.0]}],
        [GOOD | {"values": ["x", "x"]}],
        [GOOD | {"owner": "nobody"}],
        [GOOD, GOOD],
        [{"name": "a"}],
        ["a"],
    ],
)
def test_a_damaged_vocabulary_is_one_sentence(tmp_path, value):
    (tmp_path / "fields.json").write_text(json.dumps(value))
    with pytest.raises(
        DataError, match=r"fields\.json is damaged .*: import the log again"
    ) as error:
        load_fields(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("item_fields", "no table of the items' fields"),
        ("user_fields", "no table of the users' fields"),
    ],
)
def test_a_missing_table_of_fields_is_named(tmp_path, file, message):
    (folder_with_fields(tmp_path) / f"{file}.parquet").unlink()
    with pytest.raises(DataError, match=message):
        Dataset.load(tmp_path)
    assert any(message in error for error in check(tmp_path)[1])


def test_a_split_without_the_column_of_a_field_is_named(tmp_path):
    path = folder_with_fields(tmp_path) / "MicroLens_1M_x1" / "valid.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["field_device"]), path)
    with pytest.raises(DataError, match=r"valid\.parquet has no column field_device"):
        Dataset.load(tmp_path)


def test_without_fields_there_are_none(tmp_path):
    write_folder(tmp_path)
    assert load_fields(tmp_path) == ()
