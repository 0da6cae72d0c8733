"""The same dataset on Spark as without it, whatever the log; where PySpark is installed."""

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mmctr.data.dataset import Dataset
from mmctr.data.importing import cluster, spark
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import ConfigError, DataError, MMCTRError

pytest.importorskip("pyspark")
ITEMS = pd.DataFrame({"item_id": [str(n) for n in range(40)], "title": "a", "tags": "x|y"})
ITEMS["colour"] = ["red", "blue"] * 20
USERS = pd.DataFrame({"user_id": [f"u{n}" for n in range(60)], "age": np.arange(60) % 7 * 10})


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory):
    """One session for all imports of this module: starting one takes longest."""
    found = cluster._session("local[2]", tmp_path_factory.mktemp("spark") / "words.txt")
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts of even the smallest logs."""
    monkeypatch.setattr(spark, "ROWS", 200)


def clicks(rows=600, users=30, seed=0):
    """Clicks at few different times, so that some are simultaneous, and some repeat an item."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, users, rows)],
            "item_id": rng.integers(0, 42, rows),  # two are of no item
            "timestamp": 1_700_000_000 + rng.integers(0, 2000, rows),
            "rating": rng.integers(1, 6, rows).astype(float),
        }
    )


def csv_parts(folder):
    """Other delimiters, columns, quotes, torn lines, ids that are empty, numbers with zeros."""
    log = clicks()
    log["device"] = ["phone, small", "tv", "", "é"] * 150
    log["item_id"] = log["item_id"].astype(str) + ".0"
    log[:200].to_csv(folder / "log-1.csv", index=False)
    log[200:400].drop(columns="device").to_csv(folder / "log-2.csv", index=False, sep=";")
    log[400:].assign(more=1).to_csv(folder / "log-3.csv.gz", index=False)
    with (folder / "log-1.csv").open("a") as file:
        file.write("u1,3\nu2,4.0,soon,5.0,tv\n,4.0,1700000000,5.0,tv\n")
    fields = {"context_fields": "device,rating,timestamp", "item_fields": "colour"}
    return {"user_fields": "age", "split": "date", "sampling": "popularity"} | fields


def json_lists(folder):
    """A row an impression, with lists of what was shown and clicked; ids are numbers and text."""
    rng = np.random.default_rng(1)
    for part in range(3):
        with (folder / f"log-{part}.jsonl").open("w") as file:
            for n in range(80):
                shown = rng.permutation(40)[: rng.integers(0, 7)].tolist()
                moment = datetime.fromtimestamp(1_700_000_000 + 7 * n, UTC).isoformat()
                row = {"user_id": int(rng.integers(0, 20)), "timestamp": moment}
                row |= {"shown": shown, "clicked": shown[: n % 3] + [39] * (n % 11 == 0)}
                file.write(json.dumps(row) + "\n")
    return {"shown_column": "shown", "clicked_column": "clicked"}


def parquet_types(folder):
    """Hive partitions, other types in each file, a missing column, dates, ids as text."""
    log = clicks(users=60)
    log["timestamp"] = pd.to_datetime(log["timestamp"], unit="s")
    log["label"] = (np.arange(len(log)) % 3 == 0).astype(int)
    for part, kind in enumerate(("int32", "int64", "int16", "int64")):
        place = folder / f"log/day={part}"
        place.mkdir(parents=True)
        table = log[part::4].astype({"item_id": kind, "label": kind})
        table = table.drop(columns="rating") if part == 1 else table
        table.to_parquet(place / "part.parquet", row_group_size=40)
    how = {"label_column": "label", "context_fields": "day,rating:number", "order_by": "rating"}
    return how | {"split": "new-items", "new_share": 0.2}


def words(folder):
    """Words that end in their label, and the time of each item of an impression."""
    rng = np.random.default_rng(2)
    rows = [
        f"{rng.integers(0, 30)}\t{20231101 + n % 20}\t"
        + " ".join(f"{item}-{int(rng.random() < 0.3)}" for item in rng.permutation(40)[:5])
        for n in range(400)
    ]
    for part in range(2):
        lines = ["user_id\ttimestamp\tshown", *rows[part::2]]
        (folder / f"log-{part}.tsv").write_text("\n".join(lines) + "\n")
    return {"shown_column": "shown"}


def impressions(folder):
    """Shown together at several times; labels in words, with a condition."""
    log = clicks()
    log["page"] = np.arange(len(log)) // 5 % 9
    log["event"] = np.where(np.arange(len(log)) % 4 == 0, "Buy", "view")
    log["timestamp"] = log["timestamp"] * 1000 + 0.25
    log.to_parquet(folder / "log.parquet", row_group_size=90)
    how = {"label_column": "event", "click": "buy", "impression_column": "page"}
    return how | {"where": "rating > 1 AND user_id <> 'u3'"}


def ratings(folder):
    """Ratings, some of them NaN; a user of most clicks; items that are new by their first click.

    A column has the name that DuckDB gives to the numbers of rows.
    """
    log = clicks().assign(file_row_number=0)
    log.loc[::7, "rating"] = np.nan
    log.loc[::2, "user_id"] = "u7"
    log.loc[::2, "item_id"] %= 20  # so that there are others to draw as negatives
    log.to_parquet(folder / "log.parquet", row_group_size=50)
    how = {"min_rating": 3, "split": "new-items", "new_by": "first-click", "negatives": 2}
    return how | {"new_share": 0.2, "order_by": "rating"}


CASES = (csv_parts, json_lists, parquet_types, words, impressions, ratings)


def on_both(folder, options, log="log*"):
    """Import on both engines: what each said last, and its folder."""
    ITEMS.to_csv(folder / "items.csv", index=False)
    USERS.to_csv(folder / "users.csv", index=False)
    users = [folder / "users.csv"] if "user_fields" in options else None
    log = [folder / "log"] if (folder / "log").is_dir() else [folder / log]
    found = []
    for on_spark in (False, True):
        said, out = [], folder / f"out-{on_spark}"
        tables = log, [folder / "items.csv"], None, out, Recipe.of(**options), None, users
        try:
            import_dataset(*tables, on_spark=on_spark, say=said.append)
        except MMCTRError as error:
            said += [type(error), str(error)]
        # The first sentence is of Spark; which row is an example is left to chance.
        found.append(([one for one in said[on_spark:] if "such as user" not in str(one)], out))
    return found


def files_of(folder):
    """The files of a dataset, those in parts as one."""
    found = [path for path in folder.rglob("*") if path.is_file() or path.suffix == ".parquet"]
    whole = [path for path in found if path.parent.suffix != ".parquet"]
    return sorted(path.relative_to(folder) for path in whole)


@pytest.mark.parametrize("case", CASES)
def test_spark_gives_the_dataset_that_duckdb_gives(tmp_path, case):
    options = case(tmp_path)
    (said, out), (said_by_spark, of_spark) = on_both(tmp_path, options)
    assert said_by_spark == said
    files = files_of(out)
    assert files == files_of(of_spark)
    assert len(files) >= 8
    parts = list(of_spark.rglob("train.parquet/part-*.parquet"))
    assert len(parts) > 1, "which no process has to join"
    for name, rows in Dataset.load(out).splits.items():
        for field, values in vars(rows).items():
            found = vars(Dataset.load(of_spark).split(name))[field]
            np.testing.assert_array_equal(found, values, field)
    for file in files:
        if file.suffix == ".parquet":
            expected, found = pq.read_table(out / file), pq.read_table(of_spark / file)
            assert found.schema.equals(expected.schema, check_metadata=True), file
            pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas(), obj=str(file))
        else:
            assert (of_spark / file).read_text() == (out / file).read_text(), file


@pytest.mark.parametrize(
    ("change", "options", "kind", "told"),
    [
        ({"rating": "soon"}, {"label_column": "rating"}, DataError, "found 'soon', expected 1"),
        ({"timestamp": "soon"}, {}, DataError, "found soon, expected numbers or dates"),
        ({"item_id": "none"}, {}, DataError, "are of items not in the table: check the id"),
        ({}, {"where": "price > 5"}, ConfigError, "cannot be asked of"),
        ({"user_id": "u1"}, {}, ConfigError, "User u1 clicked every item that could be drawn"),
    ],
)
def test_what_is_wrong_with_a_log_is_told_as_without_spark(tmp_path, change, options, kind, told):
    clicks(rows=2000).assign(**change).to_parquet(tmp_path / "log.parquet", row_group_size=400)
    (said, _), (said_by_spark, of_spark) = on_both(tmp_path, options)
    assert said_by_spark == said
    assert said[-2] is kind and told in said[-1]
    assert not of_spark.exists() and not list(tmp_path.glob(".out*"))
