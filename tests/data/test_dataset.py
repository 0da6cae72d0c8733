"""Loading and validating whole folders, made by hand."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.data import cache
from mmctr.data.dataset import Dataset, check
from mmctr.data.fields import Field
from mmctr.data.schema import SPLITS
from mmctr.errors import DataError
from tests.data.folders import (
    FILES,
    INFINITY,
    NAMES,
    NAN,
    TRUTH,
    histories,
    in_parts,
    load_changed,
    load_with_fields,
    replaced,
    write_folder,
)


@pytest.mark.parametrize("nested", [True, False])
def test_load_reads_every_file(tmp_path, nested):
    data = Dataset.load(write_folder(tmp_path, nested=nested))
    assert list(data.splits) == ["train", "valid", "test"]
    assert data.train.user.tolist() == [7, 7, 8, 8]
    assert data.train.target.tolist() == [2, 3, 4, 1]
    assert data.train.label.tolist() == [0, 1, 0, 1]
    assert histories(data.valid) == [[1, 3], [4, 4]]
    catalog = data.catalog
    assert catalog.n_items == 4
    assert catalog.tags.tolist() == FILES["item_info"]["item_tags"]
    assert catalog.likes_level.tolist() == [0, 1, 2, 3, 4]
    assert catalog.views_level.tolist() == [0, 1, 0, 5, 10]
    assert catalog.titles.tolist() == ["", "one", "", "three", "four"]
    assert catalog.text_features.tolist() == [[0, 0, 0], *([i, i + 0.5, i] for i in range(1, 5))]
    assert catalog.image_features.tolist() == [[i, -i] for i in range(5)]
    assert not data.simulated


def test_arrays_have_the_documented_types(tmp_path):
    data = load_changed(tmp_path, {})
    catalog, rows = data.catalog, data.train
    assert (catalog.tags.dtype, catalog.likes_level.dtype) == (np.int32, np.int8)
    assert catalog.text_features.dtype == catalog.image_features.dtype == np.float32
    assert rows.user.dtype == rows.history_start.dtype == rows.history_end.dtype == np.int64
    assert rows.target.dtype == rows.history_items.dtype == np.int32
    assert rows.label.dtype == np.float32


def test_optional_files_may_be_absent(tmp_path):
    data = load_changed(tmp_path, {"test": None, "item_feature": None})
    assert list(data.splits) == ["train", "valid"]
    assert data.catalog.text_features is None
    assert data.catalog.image_features is None
    assert data.catalog.titles.tolist() == [""] * 5
    assert data.catalog.covers == {}
    with pytest.raises(DataError, match=r"no split 'test': choose one of train, valid"):
        data.split("test")


def test_truth_gives_each_row_its_probability(tmp_path):
    data = load_changed(tmp_path, {"truth": TRUTH})
    assert data.simulated
    assert data.train.probability.tolist() == [0.2, 0.1, 0.3, 0.4]
    assert data.valid.probability.tolist() == [0.5, 0.6]
    assert data.split("test").probability.tolist() == [0.7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({name: values[:-1] for name, values in TRUTH.items()}, "split test"),
        ({"row": [1, 0, 2, 3, 0, 2, 0]}, "split valid"),
        ({"row": [1, 0, 2, 3, 0, 0, 0]}, "split valid"),
        ({"probability": None}, "no column probability"),
        ({"probability": ["high"] * 7}, "column probability: found string, expected numbers"),
        ({"probability": [0.1, 0.2, 0.3, 1.4, 0.5, 0.6, 0.7]}, "column probability, row 3"),
        ({"probability": [0.1, float("nan"), 0.3, 1, 0, 0, 0]}, "column probability, row 1"),
    ],
)
def test_truth_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"truth\.parquet.*{message}"):
        load_changed(tmp_path, {"truth": TRUTH | change})


@pytest.mark.parametrize(
    ("file", "column", "row", "value"),
    [
        ("train", "user_id", 2, None),
        ("train", "item_id", 1, 5),
        ("train", "item_id", 1, 0),
        ("train", "item_id", 3, None),
        ("train", "item_seq", 2, [1, 5]),
        ("train", "item_seq", 2, [-1]),
        ("train", "item_seq", 2, None),
        ("train", "item_seq", 1, [1, None]),
        ("train", "label", 3, 2),
        ("train", "label", 3, NAN),
        ("train", "label", 0, None),
        ("valid", "label", 1, 0.5),
        ("valid", "item_id", 0, -4),
        ("test", "item_id", 0, 5),
        ("item_info", "item_id", 3, 2),
        ("item_info", "item_id", 3, 5),
        ("item_info", "item_id", 2, None),
        ("item_info", "item_tags", 3, [1, 2]),
        ("item_info", "item_tags", 2, [1, -2, 0]),
        ("item_info", "item_tags", 2, [1, 2**40, 0]),
        ("item_info", "item_tags", 2, [1, None, 0]),
        ("item_info", "item_tags", 4, None),
        ("item_info", "item_tags", 0, [1, 0, 0]),
        ("item_feature", "item_id", 2, 5),
        ("item_feature", "item_id", 3, 2),
        ("item_feature", "item_id", 1, None),
        ("item_feature", "likes_level", 1, 11),
        ("item_feature", "views_level", 0, -1),
        ("item_feature", "views_level", 3, None),
        ("item_feature", "txt_emb_BERT", 2, [1.0, 2.0]),
        ("item_feature", "txt_emb_BERT", 1, [1.0, NAN, 2.0]),
        ("item_feature", "txt_emb_BERT", 1, [1.0, None, 2.0]),
        ("item_feature", "img_emb_CLIPRN50", 3, [INFINITY, 1.0]),
        ("item_feature", "img_emb_CLIPRN50", 3, None),
    ],
)
def test_one_wrong_value_is_named_by_file_column_and_row(tmp_path, file, column, row, value):
    with pytest.raises(DataError) as error:
        load_changed(tmp_path, replaced(file, column, row, value))
    assert f"{file}.parquet, column {column}, row {row}: found" in str(error.value)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "no train.parquet"),
        ({"valid": None}, "no valid.parquet"),
        ({"item_info": None, "item_feature": None}, "neither item_info.parquet nor item_feature"),
        ({"item_info": None, "item_feature": {"item_tags": None}}, "no column item_tags"),
    ],
)
def test_missing_files_are_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load_changed(tmp_path, changes)


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_a_folder_that_is_none_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"{place} is not a folder"):
        Dataset.load(tmp_path / place)


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("train", "user_id"),
        ("train", "item_seq"),
        ("train", "item_id"),
        ("train", "label"),
        ("valid", "label"),
        ("test", "item_seq"),
        ("item_info", "item_id"),
        ("item_info", "item_tags"),
        ("item_feature", "item_id"),
    ],
)
def test_missing_and_mistyped_columns_are_named(tmp_path, file, column):
    with pytest.raises(DataError, match=rf"{file}\.parquet has no column {column}"):
        load_changed(tmp_path, {file: {column: None}})
    text = ["x"] * len(FILES[file][column])
    with pytest.raises(DataError, match=rf"{file}\.parquet, column {column}: found string"):
        load_changed(tmp_path, {file: {column: text}})


@pytest.mark.parametrize("file", [*FILES, "truth"])
@pytest.mark.parametrize("content", [b"", b"ID,Task2\n0,0.5\n", None])
def test_unreadable_files_are_named(tmp_path, file, content):
    """An empty file, a text file and (None) a truncated one."""
    write_folder(tmp_path, {"truth": TRUTH}, nested=False)
    path = tmp_path / f"{file}.parquet"
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(DataError, match=rf"{file}\.parquet is not a readable parquet file"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize("file", ["train", "test", "item_info", "item_feature"])
def test_files_without_rows_are_named(tmp_path, file):
    write_folder(tmp_path, {"item_info": None} if file == "item_feature" else {}, nested=False)
    path = tmp_path / f"{file}.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match=rf"{file}\.parquet has no rows"):
        Dataset.load(tmp_path)


def test_check_collects_the_errors_of_all_files(tmp_path):
    changes = replaced("train", "label", 3, 2) | replaced("item_info", "item_id", 3, 2)
    data, errors = check(write_folder(tmp_path / "a", changes))
    assert data is None
    assert "item_info.parquet, column item_id, row 3" in errors[0]
    assert "train.parquet, column label, row 3" in errors[1]
    assert len(errors) == 2
    changes = (
        replaced("train", "label", 3, 2)
        | replaced("valid", "item_seq", 0, [9])
        | replaced("item_info", "item_emb_d128", 2, [NAN, 0.0])
    )
    data, errors = check(write_folder(tmp_path / "b", changes))
    assert data is None
    assert "train.parquet, column label, row 3" in errors[0]
    assert "valid.parquet, column item_seq, row 0" in errors[1]
    assert "item_info.parquet, column item_emb_d128, row 2" in errors[2]
    assert len(errors) == 3


def test_check_returns_a_sound_dataset(tmp_path):
    data, errors = check(write_folder(tmp_path))
    assert errors == []
    assert len(data.train) == 4


def test_summary_and_train_clicks(tmp_path):
    data = load_changed(tmp_path, {})
    table = data.summary().set_index("split")
    assert table["rows"].to_dict() == {"train": 4, "valid": 2, "test": 1}
    assert table.loc["train", ["users", "target items", "share of clicks"]].tolist() == [2, 4, 0.5]
    assert table.loc["train", ["mean history", "longest history"]].tolist() == [1, 2]
    assert np.isnan(table.loc["test", "share of clicks"])
    assert data.train_clicks().tolist() == [0, 1, 0, 1, 0]


def test_repeated_rows_count_equal_user_target_and_history(tmp_path):
    train = {
        "user_id": [1, 1, 2, 3],
        "item_seq": [[0, 1, 2], [0, 1, 2], [0, 0, 0], [3, 2, 1]],
        "item_id": [3, 4, 1, 4],
        "likes_level": None,
        "views_level": None,
        "label": [0, 1, 0, 1],
    }
    valid = {
        "user_id": [1, 1, 1, 2, 2, 3],
        "item_seq": [[1, 2], [0, 1, 2], [2, 1], [0], [1], [3, 2, 1]],
        "item_id": [3, 4, 3, 1, 1, 3],
        "likes_level": None,
        "views_level": None,
        "label": [1, 1, 0, 0, 0, 1],  # the label does not count
    }
    # Repeated: (1, 3, [1, 2]), (1, 4, [1, 2]) and (2, 1, []).
    assert load_changed(tmp_path, {"train": train, "valid": valid}).repeated_rows() == 3


@pytest.mark.parametrize("file", ["train", "item_info", "item_feature", "truth"])
def test_a_column_that_is_there_twice_is_refused(tmp_path, file):
    write_folder(tmp_path, {"truth": TRUTH}, nested=False)
    path = tmp_path / f"{file}.parquet"
    table = pq.read_table(path)
    name = table.column_names[0]
    pq.write_table(table.append_column(name, table.column(0)), path)
    with pytest.raises(DataError, match=rf"{file}\.parquet has 2 columns {name}, expected one"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("about", "metadata", "expected"),
    [
        (None, None, "unknown"),
        ({}, None, "unknown"),
        ({}, b"uniform", "sampled"),
        ({"negatives": "outcome"}, None, "outcome"),
        ({"negatives": "shown"}, b"uniform", "shown"),
    ],
)
def test_files_say_where_negatives_come_from(tmp_path, about, metadata, expected):
    write_folder(tmp_path)
    if about is not None:
        (tmp_path / "dataset.json").write_text(json.dumps(about))
    if metadata:
        path = tmp_path / "MicroLens_1M_x1" / "train.parquet"
        table = pq.read_table(path).replace_schema_metadata({"mmctr.negatives": metadata})
        pq.write_table(table, path)
    assert Dataset.load(tmp_path).negatives_from == expected


def test_simulated_negatives_were_shown_also_after_an_extraction(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "demo")
    assert Dataset.load(folder).negatives_from == "shown"
    (folder / "dataset.json").write_text('{"encoders": {}}')
    assert Dataset.load(folder).negatives_from == "shown"


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"negatives": "magic"}', '{"negatives": [1]}'])
def test_a_damaged_dataset_json_is_one_sentence(tmp_path, text):
    write_folder(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json (is damaged|has negatives)"):
        _ = Dataset.load(tmp_path).negatives_from


def test_rows_without_times_keep_the_given_levels(tmp_path):
    """The challenge's own files have no times: levels are those of the catalog."""
    write_folder(tmp_path)
    dataset = Dataset.load(tmp_path)
    assert all(rows.levels is None and rows.time is None for rows in dataset.splits.values())
    assert dataset.catalog.likes_level.tolist() == [0, 1, 2, 3, 4]
    assert dataset.known_clicks(dataset.valid).tolist() == [0, 0]
    assert dataset.known_clicks(dataset.split("test")).tolist() == [1]


def test_clicks_are_known_as_of_a_rows_time(tmp_path):
    times = {"train": [9, 5, 3, 6], "valid": [7, 8], "test": [6]}
    untold = {"likes_level": None, "views_level": None}
    write_folder(tmp_path, {name: untold | {"time": time} for name, time in times.items()})
    dataset = Dataset.load(tmp_path)
    # Train clicks: item 3 at 5 and item 1 at 6.
    test, train = dataset.split("test"), dataset.train
    assert dataset.known_clicks(test).tolist() == [1]
    assert dataset.known_clicks(train).tolist() == [0, 0, 0, 0], "none counts itself"
    assert train.levels.tolist() == [[0, 0]] * 4
    assert test.levels.tolist() == [[1, 9]], "four times the mean of four items"


def test_rows_that_tell_levels_keep_the_given_ones_also_with_times(tmp_path):
    write_folder(tmp_path, {"train": {"time": [9, 5, 3, 6]}, "valid": {"time": [7, 8]}})
    dataset = Dataset.load(tmp_path)
    assert dataset.train.levels is None
    assert dataset.levels(dataset.train).tolist() == [[2, 0], [3, 5], [4, 10], [1, 1]]


def test_other_vocabularies_give_the_same_values_other_codes(tmp_path, monkeypatch):
    dataset = load_with_fields(tmp_path)
    brand, country, device, position = dataset.fields
    assert Dataset.load(tmp_path, dataset.fields).catalog.field_codes.tolist() == (
        dataset.catalog.field_codes.tolist()
    )
    wanted = (
        replace(brand, values=("c", "b")),
        replace(country, values=("FR",)),
        replace(position, borders=(0.5, 1.5)),
    )
    monkeypatch.setattr(cache, "SMALLEST", 0)
    read = Dataset.load(tmp_path, wanted)
    assert not (tmp_path / ".cache").exists()  # which holds codes of the folder's own
    assert read.fields == wanted
    assert read.catalog.field_codes[:, 0].tolist() == [0, 0, 2, 0, 0]
    assert read.train.fields.tolist() == [[1, 2], [1, 3], [0, 2], [0, 3]]
    assert Dataset.load(tmp_path, ()).train.fields is None
    assert device not in read.fields


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            Field("price", "item", borders=(1.0,)),
            r"has no such field: price \(item\), expected numbers, as a run was trained with: "
            r"import the log again with --item-fields price\.",
        ),
        (
            Field("device", "context", borders=(1.0,)),
            r"has text there: device \(context\), expected numbers, .* --context-fields "
            r"device:number\.",
        ),
    ],
)
def test_a_field_that_the_files_lack_is_named(tmp_path, field, message):
    load_with_fields(tmp_path)
    with pytest.raises(DataError, match=message):
        Dataset.load(tmp_path, (field,))


def test_users_are_found_by_what_the_user_s_tables_call_them(tmp_path):
    dataset = load_changed(tmp_path, NAMES)
    assert dataset.users(["0008", "ann", "<i>", "ann"]).tolist() == [8, 7, 9, 7]
    with pytest.raises(DataError, match=r"Found user '8', expected one of the 3 users of"):
        dataset.users(["ann", "8"])


def test_where_train_is_the_newest_rows_the_clicks_of_all_are_known(tmp_path):
    times = {name: {"time": [10, 20, 30, 40][: len(FILES[name]["user_id"])]} for name in SPLITS}
    whole = load_changed(tmp_path, times)
    assert whole.known_rows is whole.train
    newest = replace(
        whole, splits=whole.splits | {"train": whole.train.select([2])}, known=whole.train
    )
    assert newest.train_clicks().tolist() == whole.train_clicks().tolist() == [0, 1, 0, 1, 0]
    row = replace(whole.valid.select([0]), target=np.array([3]), time=np.array([21]))
    assert newest.known_clicks(row).tolist() == whole.known_clicks(row).tolist() == [1]


def write_table(path, columns):
    pq.write_table(pa.table(columns), path)


SNAPPY = "snappy.parquet"  # as engines end the names of parts


def test_a_split_in_parts_is_the_split(tiny, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "parts")
    in_parts(folder, "train", [700, 700, 1801], SNAPPY)  # one of them without a row
    path = in_parts(folder, "test", [], SNAPPY)
    found = Dataset.load(folder)
    for name, rows in tiny.splits.items():
        for field, values in vars(rows).items():
            np.testing.assert_array_equal(vars(found.split(name))[field], values, field)
    assert check(folder)[1] == []
    before = found.fingerprint
    assert Dataset.load(folder).fingerprint == before
    (path / "part-00000.snappy.parquet").rename(path / "part-00001.snappy.parquet")
    assert Dataset.load(folder).fingerprint != before


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: (path / "notes.txt").touch(), r"notes\.txt is no parquet file"),
        (lambda path: (path / "part-00001.snappy.parquet").write_bytes(b""), "not a readable"),
        (
            lambda path: write_table(path / "part-2.parquet", {"user_id": [1], "item_id": [1]}),
            r"part-2\.parquet has no column item_seq",
        ),
        (
            lambda path: write_table(
                path / "part-2.parquet", {**FILES["train"], "time": [1, 2, 3, 4]}
            ),
            r"part-2\.parquet and .*part-00000\.snappy\.parquet differ in column time",
        ),
        (lambda path: [part.unlink() for part in path.iterdir()], "holds no parquet file"),
    ],
)
def test_a_spoilt_part_is_one_sentence(tmp_path, spoil, sentence):
    path = in_parts(write_folder(tmp_path), "train", [2], SNAPPY)
    spoil(path)
    with pytest.raises(DataError, match=sentence):
        Dataset.load(tmp_path)
