"""The user's own ids and the tags' names, read from a folder made by hand."""

import json
import shutil
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.data import names
from mmctr.data.catalog import load_catalog
from mmctr.data.dataset import Dataset, check
from mmctr.errors import DataError
from tests.data.folders import NAMES, load_changed, write_folder


def test_ids_and_names_are_the_users_own(tmp_path):
    data = load_changed(tmp_path, NAMES)
    assert data.catalog.ids.tolist() == ["", "0007", "x-2", "<b>", "9007199254740993"]
    assert [data.catalog.tag_name(tag) for tag in (1, 2, 3)] == ["Drama", "Sci-Fi & more", "Noir"]
    assert data.user_names(data.train.user).tolist() == ["ann", "ann", "0008", "0008"]
    assert data.user_names(np.array([9, 7])).tolist() == ["<i>", "ann"]


def test_without_their_files_ids_and_names_are_the_numbers(tmp_path):
    data = load_changed(tmp_path, {})
    assert data.catalog.own_ids is data.catalog.ids_hash is data.catalog.tags_hash is None
    assert data.catalog.ids.tolist() == ["", "1", "2", "3", "4"]
    assert data.catalog.tag_name(np.int32(3)) == "3"
    assert data.user_names(data.valid.user).tolist() == ["7", "9"]


def test_numbers_are_the_rows_of_own_ids(tmp_path):
    named = load_changed(tmp_path / "named", NAMES).catalog
    assert named.numbers(["x-2", "9007199254740993", "x-2"]).tolist() == [2, 4, 2]
    assert named.numbers([]).tolist() == []
    plain = load_changed(tmp_path / "plain", {}).catalog
    assert plain.numbers(["4", 1]).tolist() == [4, 1]
    for catalog, unknown in ((named, "7"), (named, ""), (named, "1"), (plain, "0"), (plain, "01")):
        with pytest.raises(DataError, match=f"Found item {unknown!r}, expected .* leave it out"):
            catalog.numbers([catalog.ids[3], unknown])


def test_two_users_with_one_own_id_are_told(tmp_path):
    folder = write_folder(tmp_path, NAMES)
    assert check(folder)[1] == []
    change = {"user_id": [9, 7, 8, 4], "original_id": ["ann", "x", "0008", "ann"]}
    _, (sentence,) = check(write_folder(tmp_path, NAMES | {"user_ids": change}))
    assert "user_ids.parquet, column original_id, row 3: found 'ann' again" in sentence
    assert "\n" not in sentence


def test_names_are_not_part_of_the_fingerprint(tmp_path):
    plain = load_changed(tmp_path / "plain", {}).fingerprint
    assert load_changed(tmp_path / "named", NAMES).fingerprint == plain


def test_a_tag_that_has_no_name_keeps_its_number(tmp_path):
    catalog = load_changed(tmp_path, {"tags": {"tag": [2], "name": ["Drama"]}}).catalog
    assert [catalog.tag_name(tag) for tag in (1, 2)] == ["1", "Drama"]


def test_the_hash_of_ids_knows_their_order_and_their_bounds(tmp_path):
    hashes = {
        load_changed(tmp_path / str(number), {"item_ids": table}).catalog.ids_hash
        for number, table in enumerate(
            {"item_id": [1, 2, 3, 4], "original_id": ids}
            for ids in (list("abcd"), list("abdc"), ["a", "b", "c", "d,"], ["ab", "c", "d", ""])
        )
    }
    assert len(hashes) == 4
    again = {"item_id": [4, 3, 2, 1], "original_id": list("dcba")}
    catalog = load_changed(tmp_path / "again", {"item_ids": again}).catalog
    assert catalog.ids_hash in hashes


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("item_ids", {"item_id": [1, 2, 3, 5]}, "item_id, row 3: found 5, expected a number from"),
        ("item_ids", {"item_id": [1, 2, 3, 3]}, "item_id, row 3: found 3 again"),
        ("item_ids", {"item_id": [1, 2, 3, None]}, "item_id, row 3: found a missing value"),
        ("item_ids", {"item_id": list("abcd")}, "item_id: found string, expected whole numbers"),
        ("item_ids", {"original_id": [1, 2, 3, 4]}, "original_id: found int64, expected text"),
        ("item_ids", {"original_id": ["a", None, "b", "c"]}, "original_id, row 1: found a missing"),
        ("item_ids", {"original_id": ["a", "b", "a", "c"]}, "original_id, row 2: found 'a' again"),
        ("item_ids", {"original_id": None}, "has no column original_id"),
        ("item_ids", {"item_id": [2], "original_id": ["a"]}, "item_id: found no 1, expected"),
        ("tags", {"name": ["a", "a", "b"]}, "name, row 1: found 'a' again"),
        ("tags", {"tag": [0, 1, 2]}, "tag, row 0: found 0, expected"),
        ("user_ids", {"user_id": [7, 7, 8]}, "user_id, row 1: found 7 again"),
        ("user_ids", {"user_id": [7, 8, 1]}, "user_id: found no 9, expected"),
        ("user_ids", {"original_id": ["a", "b", None]}, "original_id, row 2: found a missing"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, file, change, message):
    folder = write_folder(tmp_path, NAMES | {file: NAMES[file] | change})
    with pytest.raises(DataError) as caught:
        data = Dataset.load(folder)
        data.user_names(data.valid.user)
    assert f"{file}.parquet" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert check(folder) == (None, [str(caught.value)])


@pytest.mark.parametrize("file", ["item_ids", "tags", "user_ids"])
def test_a_file_that_is_no_parquet_is_one_sentence(tmp_path, file):
    folder = write_folder(tmp_path, NAMES, nested=False)
    (folder / f"{file}.parquet").write_text("no table")
    with pytest.raises(DataError, match=rf"{file}\.parquet is not a readable parquet file"):
        data = Dataset.load(folder)
        data.user_names(data.valid.user)


def test_users_are_read_when_they_are_asked_for_and_once(tmp_path):
    data = load_changed(tmp_path, NAMES)
    path = tmp_path / "MicroLens_1M_x1" / "user_ids.parquet"
    shutil.move(path, tmp_path / "user_ids.parquet")
    assert data.user_names(data.train.user)[0] == "ann"
    (tmp_path / "user_ids.parquet").unlink()
    assert data.user_names(data.train.user)[0] == "ann"


def test_millions_of_users_are_read_quickly(tmp_path):
    numbers = np.arange(1, 2_000_001)
    ids = pa.array(numbers).cast(pa.string())
    data = load_changed(tmp_path, {})
    pq.write_table(
        pa.table({"user_id": numbers, "original_id": ids}), tmp_path / "user_ids.parquet"
    )
    # Of this process alone: others may be at work.
    started = time.process_time()
    assert data.user_names(np.array([1_999_999, 3])).tolist() == ["1999999", "3"]
    assert time.process_time() - started < 5
    assert len(names.user_ids(tmp_path, distinct=True).numbers) == 2_000_000
    assert time.process_time() - started < 10


def test_names_that_an_import_writes_are_read(tmp_path):
    from tests.data.importing.logs import LOG, imported

    out, _ = imported(tmp_path, LOG, say=lambda _: None)
    catalog, data = load_catalog(out), Dataset.load(out)
    assert set(catalog.ids[1:]) == {f"i{number}" for number in range(12)}
    first = catalog.ids.tolist().index("i0")
    assert {catalog.tag_name(tag) for tag in catalog.tags[first] if tag} == {"Drama", "Comedy"}
    assert set(data.user_names(data.train.user)) <= {"a", "b"}
    assert json.loads((out / "dataset.json").read_text())["counts"]["items"] == catalog.n_items
