"""A table may be one file, several, a pattern or a folder of parts."""

import gzip
import json

import pytest

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, folder_bytes, read


def test_several_files_and_patterns_are_one_table(tmp_path):
    for number in range(3):
        text = f"user_id,item_id,timestamp\nu,i{number},{number}\n"
        (tmp_path / f"log{number}.csv.gz").write_bytes(gzip.compress(text.encode()))
    ITEMS.to_parquet(tmp_path / "items.parquet")
    every = [tmp_path / f"log{number}.csv.gz" for number in range(3)]
    made = []
    for name, paths in (("a", every), ("b", [tmp_path / "log*.csv.gz"])):
        items = [tmp_path / "items.parquet"]
        facts = import_dataset(paths, items, None, tmp_path / name, Recipe.of(negatives=1))
        assert facts["counts"]["clicks"] == 3
        made.append(folder_bytes(tmp_path / name))
    assert made[0] == made[1]
    with pytest.raises(DataError, match="holds files of several kinds, csv and parquet"):
        import_dataset([*every, *items], items, None, tmp_path / "c", Recipe.of())


def test_empty_parts_are_left_out(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "part-0.csv").touch()
    (tmp_path / "log" / "part-1.csv.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "log" / "part-2.csv").write_text(
        "user_id,item_id,timestamp\nu,i1,1\nu,i2,2\nu,i3,3\n"
    )
    assert read(tmp_path, "log")[0]["clicks"] == 3
    (tmp_path / "log" / "part-2.csv").unlink()
    (tmp_path / "o").rename(tmp_path / "out")
    with pytest.raises(DataError, match="log is empty: name a CSV"):
        read(tmp_path, "log")


def test_csv_files_may_differ_in_columns_and_delimiter(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp,rating\nu,i1,1,5\nu,i2\n")
    (tmp_path / "b.csv").write_text("timestamp;item_id;user_id\n3;i3;u\n4;i4;u\n5\n")
    counts, said = read(tmp_path, "a.csv", "b.csv")
    assert (counts["interactions"], counts["clicks"], counts["unreadable"]) == (5, 3, 2)
    assert said[1].endswith("(2 files of CSV, delimiter ',' and ';')")


def test_a_json_array_is_read(tmp_path):
    rows = [{"user_id": "007", "item_id": f"i{n}", "timestamp": n} for n in range(3)]
    for name, text in (("log.json", json.dumps(rows, indent=1)), ("log", json.dumps(rows))):
        (tmp_path / name).write_text(text)
        counts, said = read(tmp_path, name)
        assert (counts["clicks"], counts["users"]) == (3, 1)
        assert said[1].endswith("(JSON array)")
        (tmp_path / "o").rename(tmp_path / f"out of {name}")


def test_a_file_named_twice_is_read_twice(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i1,1\nu,i2,2\nu,i3,3\n")
    counts, _ = read(tmp_path, "log.csv", "log.csv")
    assert (counts["interactions"], counts["repeated"]) == (6, 3)
