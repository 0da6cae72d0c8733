"""Loading and validating whole folders, made by hand, and sharing of histories."""

import shutil
from itertools import chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data import dataset as dataset_module
from mmctr.data import schema
from mmctr.data.dataset import (
    Dataset,
    Impressions,
    check,
    distinct_histories,
    history_hashes,
    load_impressions,
)
from mmctr.errors import DataError
from tests.fuzz.cases import limited_memory
from tests.fuzz.datasets import claiming

FILES = {
    "item_info": {
        "item_id": [0, 1, 2, 3, 4],
        "item_tags": [[0, 0, 0], [1, 2, 0], [3, 0, 0], [2, 0, 0], [0, 0, 0]],
        "item_emb_d128": [[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]],
    },
    "item_feature": {
        "item_id": [4, 2, 1, 3],
        "item_title": ["four", None, "one", "three"],
        "item_tags": [[0, 0, 0], [3, 0, 0], [1, 2, 0], [2, 0, 0]],
        "likes_level": [4, 2, 1, 3],
        "views_level": [10, 0, 1, 5],
        "txt_emb_BERT": [[4.0, 4.5, 4.0], [2.0, 2.5, 2.0], [1.0, 1.5, 1.0], [3.0, 3.5, 3.0]],
        "img_emb_CLIPRN50": [[4.0, -4.0], [2.0, -2.0], [1.0, -1.0], [3.0, -3.0]],
    },
    "train": {
        "user_id": [7, 7, 8, 8],
        "item_seq": [[0, 0, 1], [0, 0, 1], [0, 1, 2], [0, 0, 0]],
        "item_id": [2, 3, 4, 1],
        "likes_level": [6, 7, 8, 9],
        "views_level": [1, 2, 3, 4],
        "label": [0, 1, 0, 1],
    },
    "valid": {
        "user_id": [7, 9],
        "item_seq": [[1, 3], [4, 4]],
        "item_id": [4, 2],
        "likes_level": [1, 1],
        "views_level": [1, 1],
        "label": [1, 0],
    },
    "test": {
        "user_id": [8],
        "item_seq": [[2, 1]],
        "item_id": [3],
        "likes_level": [7],
        "views_level": [2],
        "label": [0],
    },
}
ITEM_FILES = ("item_feature", "item_emb")  # published beside the folder MicroLens_1M_x1


def write_folder(folder, changes=None, *, nested=True):
    """Write FILES with changes {file: {column: values}}; None leaves a column or file out."""
    changes = changes or {}
    for name in FILES | changes:
        change = changes.get(name, {})
        if change is None:
            continue
        columns = {k: v for k, v in (FILES.get(name, {}) | change).items() if v is not None}
        place = folder / schema.NESTED_FOLDER if nested and name not in ITEM_FILES else folder
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), place / f"{name}.parquet")
    return folder


def load_changed(folder, changes):
    """Load the folder's FILES with changes."""
    return Dataset.load(write_folder(folder, changes))


def replaced(file, column, row, value):
    """A change of one value of a column of FILES."""
    return {file: {column: [*FILES[file][column][:row], value, *FILES[file][column][row + 1 :]]}}


def histories(rows):
    """Each row's history as a list."""
    return [rows.history(row).tolist() for row in range(len(rows))]


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


def test_padding_is_stripped_and_equal_histories_are_stored_once(tmp_path):
    rows = load_changed(tmp_path, {}).train
    assert histories(rows) == [[1], [1], [1, 2], []]
    assert rows.history_length.tolist() == [1, 1, 2, 0]
    assert rows.history_start[0] == rows.history_start[1]
    assert len(rows.history_items) == 3


def test_lists_of_unequal_lengths_and_batches_of_a_file(tmp_path, monkeypatch):
    """Rows and row numbers stay right when a file is read in several batches."""
    monkeypatch.setattr(dataset_module, "BATCH", 2)
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


def test_levels_from_rows_of_a_file_in_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "BATCH", 3)
    changes = {"item_feature": None} | replaced("train", "likes_level", 3, 11)
    with pytest.raises(DataError, match=r"train\.parquet, column likes_level, row 3: found 11"):
        load_changed(tmp_path, changes)
    changes = {"item_feature": None} | replaced("train", "item_id", 3, 2)
    assert load_changed(tmp_path, changes).catalog.likes_level.tolist() == [0, 0, 9, 7, 8]


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


def test_optional_files_may_be_absent(tmp_path):
    data = load_changed(tmp_path, {"test": None, "item_feature": None})
    assert list(data.splits) == ["train", "valid"]
    assert data.catalog.text_features is None
    assert data.catalog.image_features is None
    assert data.catalog.titles.tolist() == [""] * 5
    assert data.catalog.covers == {}
    with pytest.raises(DataError, match=r"no split 'test': choose one of train, valid"):
        data.split("test")


def test_item_feature_alone_makes_a_catalog(tmp_path):
    catalog = load_changed(tmp_path, {"item_info": None}).catalog
    assert catalog.tags.tolist() == FILES["item_info"]["item_tags"]
    assert catalog.provided == {}


def test_levels_come_from_rows_where_item_feature_has_none(tmp_path):
    """Each item's level is that of the rows with it as target; train decides, valid comes next."""
    changes = {"item_feature": {"likes_level": None}, "test": {"likes_level": [1]}}
    catalog = load_changed(tmp_path, changes).catalog
    assert catalog.likes_level.tolist() == [0, 9, 6, 7, 8]
    assert catalog.views_level.tolist() == [0, 1, 0, 5, 10]


def test_levels_are_unknown_where_nothing_tells(tmp_path):
    none = {"likes_level": None, "views_level": None}
    changes = {"item_feature": None, "train": none, "test": none}
    catalog = load_changed(tmp_path, changes).catalog
    assert catalog.likes_level.tolist() == [0, 0, 1, 0, 1]


def test_covers_are_found_by_item_id(tmp_path):
    images = write_folder(tmp_path) / "item_images"
    images.mkdir()
    for name in ("1.jpg", "2.PNG", "3.txt", "0.jpg", "9.jpg", "cover.jpg"):
        (images / name).touch()
    assert Dataset.load(tmp_path).catalog.covers == {1: images / "1.jpg", 2: images / "2.PNG"}


def test_provided_embeddings_of_both_files(tmp_path):
    table = {"item_id": [3, 0, 1], "item_emb_d128_v1": [[3.0], [0.0], [1.0]]}
    catalog = load_changed(tmp_path, {"item_emb": table}).catalog
    assert set(catalog.provided) == {"item_emb_d128", "item_emb_d128_v1"}
    values = catalog.provided_embedding("item_emb_d128_v1")
    assert values.dtype == np.float32
    assert values.tolist() == [[0], [1], [0], [3], [0]]
    expected = FILES["item_info"]["item_emb_d128"]
    assert catalog.provided_embedding("item_emb_d128").tolist() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_emb": [[0.0], [float("nan")]]}, "column item_emb, row 1: found NaN or infinity"),
        ({"item_emb": [[0.0], [1.0, 2.0]]}, "column item_emb, row 1: found 2 values, expected 1"),
        ({"item_emb": [[0.1], [1.0]]}, "column item_emb, row 0: .*item 0 is padding"),
        ({"item_emb": [[0.0], None]}, "column item_emb, row 1: found a missing value"),
        ({"item_id": [0, 5]}, "column item_id, row 1: found 5, expected a number from 0 to 4"),
        ({"item_id": [1, 1]}, "column item_id, row 1: found 1 again .first in row 0"),
    ],
)
def test_unfit_provided_embeddings_are_refused(tmp_path, change, message):
    table = {"item_id": [0, 1], "item_emb": [[0.0], [1.0]]} | change
    catalog = load_changed(tmp_path, {"item_emb": table}).catalog
    with pytest.raises(DataError, match=rf"item_emb\.parquet, {message}"):
        catalog.provided_embedding("item_emb")


def test_a_provided_embedding_without_rows_is_refused(tmp_path):
    table = {"item_id": pa.array([], pa.int64()), "item_emb": pa.array([], pa.list_(pa.float32()))}
    catalog = load_changed(tmp_path, {"item_emb": table}).catalog
    with pytest.raises(DataError, match=r"item_emb\.parquet has no rows"):
        catalog.provided_embedding("item_emb")


TRUTH = {
    "split": ["train"] * 4 + ["valid"] * 2 + ["test"],
    "row": [1, 0, 2, 3, 0, 1, 0],
    "probability": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
}


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


NAN, INFINITY = float("nan"), float("inf")


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


@pytest.mark.parametrize("column", ["txt_emb_BERT", "img_emb_CLIPRN50"])
def test_features_of_the_padding_item_must_be_zero(tmp_path, column):
    feature = {name: [*values, values[0]] for name, values in FILES["item_feature"].items()}
    feature["item_id"][-1] = 0
    zeros = {"txt_emb_BERT": [0.0] * 3, "img_emb_CLIPRN50": [0.0] * 2}
    for name in zeros:
        feature[name][-1] = zeros[name]
    assert load_changed(tmp_path, {"item_feature": feature}).catalog.likes_level[0] == 0
    feature[column][-1] = FILES["item_feature"][column][0]
    with pytest.raises(DataError, match=rf"item_feature\.parquet, column {column}, row 4"):
        load_changed(tmp_path, {"item_feature": feature})


def test_levels_in_rows_are_checked_when_they_are_needed(tmp_path):
    changes = replaced("train", "likes_level", 2, 11) | {"item_feature": None}
    with pytest.raises(DataError, match=r"train\.parquet, column likes_level, row 2: found 11"):
        load_changed(tmp_path, changes)


def test_a_huge_item_id_is_an_error_and_not_a_size(tmp_path):
    changes = replaced("item_feature", "item_id", 1, 2**62) | {"item_info": None}
    with pytest.raises(DataError, match=r"item_feature\.parquet, column item_id, row 1"):
        load_changed(tmp_path, changes)


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


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    write_folder(tmp_path)
    monkeypatch.setattr(dataset_module.hashlib, "file_digest", deny)
    match = r"train\.parquet is not a readable parquet file \(Permission denied\)"
    with pytest.raises(DataError, match=match):
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
    assert table.loc["train", ["users", "target items", "click rate"]].tolist() == [2, 4, 0.5]
    assert table.loc["train", ["mean history", "longest history"]].tolist() == [1, 2]
    assert np.isnan(table.loc["test", "click rate"])
    assert data.train_clicks().tolist() == [0, 1, 0, 1, 0]


def test_select_keeps_rows_and_order(tmp_path):
    data = load_changed(tmp_path, {"truth": TRUTH})
    rows = data.train.select(np.array([3, 0, 2]))
    assert rows.target.tolist() == [1, 2, 4]
    assert rows.label.tolist() == [1, 0, 0]
    assert histories(rows) == [[], [1], [1, 2]]
    assert rows.probability.tolist() == [0.4, 0.2, 0.3]
    assert len(rows) == 3


def test_fingerprint_changes_with_the_contents_alone(tmp_path):
    first = Dataset.load(write_folder(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Dataset.load(tmp_path / "b").fingerprint == first.fingerprint
    changed = load_changed(tmp_path / "c", replaced("train", "label", 0, 1))
    assert changed.fingerprint != first.fingerprint


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


LISTS_OF_CLICKS = st.lists(st.lists(st.integers(1, 4), max_size=5), min_size=1, max_size=20)


def share(clicks):
    """Each row's shared history as a list, and the distinct ones in the order they are stored."""
    items = np.concatenate([np.array(row, dtype=np.int32) for row in clicks])
    number, flat, lengths = distinct_histories(items, np.array([len(row) for row in clicks]))
    distinct = [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]
    return [distinct[i] for i in number], distinct


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(1, 9))
def test_blocks_hold_all_rows_and_few_clicks(lengths, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "BLOCK", block)
        parts = [lengths[rows] for rows in dataset_module._blocks(np.array(lengths, dtype=int))]
    assert list(chain(*parts)) == lengths
    assert all(part and sum(part) <= block + max(lengths) for part in parts)


def constant_hash(items, starts, ends):
    """A hash by which all histories collide."""
    return np.zeros(len(starts), dtype=np.uint64)


@given(LISTS_OF_CLICKS, st.integers(1, 9))
def test_equal_histories_are_stored_once_in_order(clicks, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "BLOCK", block)
        shared, distinct = share(clicks)
    assert shared == clicks
    assert distinct == [list(row) for row in dict.fromkeys(map(tuple, clicks))]


@given(LISTS_OF_CLICKS, st.integers(1, 9))
def test_colliding_histories_keep_their_own_copy(clicks, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "BLOCK", block)
        patch.setattr(dataset_module, "_hash_slices", constant_hash)
        assert share(clicks)[0] == clicks


@pytest.mark.parametrize("collide", [False, True])
@given(clicks=LISTS_OF_CLICKS, batch=st.integers(1, 7), block=st.integers(1, 9))
def test_histories_are_shared_across_batches_of_a_file(
    tmp_path_factory, collide, clicks, batch, block
):
    """Batches of a few rows and blocks of a few clicks give what one of each does."""
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    ones = [1] * len(clicks)
    padded = [[0] * (5 - len(row)) + row for row in clicks]
    columns = {"user_id": ones, "item_seq": padded, "item_id": ones, "label": ones}
    pq.write_table(pa.table(columns), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "BATCH", batch)
        patch.setattr(dataset_module, "BLOCK", block)
        if collide:
            patch.setattr(dataset_module, "_hash_slices", constant_hash)
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
        patch.setattr(dataset_module, "BLOCK", block)
        hashes = history_hashes(rows)
    expected = pd.factorize(pd.Series([tuple(row) for row in histories(rows)]))[0]
    assert pd.factorize(hashes)[0].tolist() == expected.tolist()


def test_history_hashes_of_no_rows(tmp_path):
    rows = load_changed(tmp_path, {}).train.select(np.array([], dtype=np.int64))
    assert len(history_hashes(rows)) == 0


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


@pytest.mark.parametrize("file", ["train", "item_info", "item_feature", "truth"])
def test_a_column_that_is_there_twice_is_refused(tmp_path, file):
    write_folder(tmp_path, {"truth": TRUTH}, nested=False)
    path = tmp_path / f"{file}.parquet"
    table = pq.read_table(path)
    name = table.column_names[0]
    pq.write_table(table.append_column(name, table.column(0)), path)
    with pytest.raises(DataError, match=rf"{file}\.parquet has 2 columns {name}, expected one"):
        Dataset.load(tmp_path)


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = write_folder(tmp_path, nested=False) / "item_feature.parquet"
    raw = pa.array([b"good", None, b"caf\xe9", b"\xff"], pa.binary())
    titles = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    pq.write_table(pq.read_table(path).set_column(1, "item_title", titles), path)
    with pytest.raises(DataError, match=r"item_feature\.parquet, column item_title, row 2: found"):
        Dataset.load(tmp_path)


def test_a_label_next_to_1_is_refused_and_not_rounded(tmp_path):
    with pytest.raises(
        DataError, match=r"train\.parquet, column label, row 1: found 1\.0000000001"
    ):
        load_changed(tmp_path, {"train": {"label": [0.0, 1.0000000001, 0.0, 1.0]}})


def test_a_folder_named_like_a_cover_is_none(tmp_path):
    images = write_folder(tmp_path) / "item_images"
    (images / "1.jpg").mkdir(parents=True)
    (images / "2.jpg").write_bytes(b"a picture")
    (images / "3.jpg").symlink_to(images / "nothing")
    assert list(Dataset.load(tmp_path).catalog.covers) == [2]
