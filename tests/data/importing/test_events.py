"""Clicks in the order of their time."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr.data.importing import events, writing
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import ConfigError, DataError
from tests.data.importing.logs import ITEMS, imported, log_rows, positions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": [True, True, False]}, r"column timestamp: found boolean"),
        ({"timestamp": ["soon", "later", "now"]}, r"column timestamp: found soon, expected numb"),
        ({"timestamp": [None, None, None]}, r"column timestamp: found"),
        ({"user_id": [1.5, 2.0, 2.0]}, r"column user_id: found 1.5, expected ids as text or whole"),
        ({"user_id": [[1], [2], [3]]}, r"column user_id: found bigint\[\], expected ids as text"),
        ({"user_id": [True, False, True]}, r"column user_id: found boolean, expected ids as text"),
        ({"item_id": [["i1"], ["i2"], ["i3"]]}, r"column item_id: found varchar\[\], expected ids"),
        ({"rating": ["a", "b", "c"]}, r"column rating: found 'a', expected numbers"),
        ({"rating": [[1], [2], [3]]}, r"column rating: found bigint\[\], expected numbers"),
    ],
)
def test_columns_that_cannot_be_used_are_named(tmp_path, change, message):
    columns = {"user_id": [1, 1, 1], "item_id": ["i1", "i2", "i3"], "timestamp": [1, 2, 3]}
    columns |= {"rating": [5, 5, 5]} | change
    pd.DataFrame(columns).to_parquet(tmp_path / "log.parquet")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths = [tmp_path / "log.parquet"], [tmp_path / "items.parquet"]
    with pytest.raises(DataError, match=message):
        import_dataset(*paths, None, tmp_path / "o", Recipe.of(min_rating=2))


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": [1.0, 2.0, np.nan, 4.0]},
        {"timestamp": [1.0, 2.0, np.inf, 4.0]},
        {"user_id": [1.0, 1.0, np.nan, 1.0]},
        {"item_id": ["i1", "i2", None, "i4"]},
        {"item_id": ["i1", "i2", "", "i4"]},
    ],
)
def test_rows_without_a_value_are_counted_and_told(tmp_path, change):
    log = {"user_id": [1] * 4, "item_id": ["i1", "i2", "i3", "i4"], "timestamp": [1, 2, 3, 4]}
    pd.DataFrame(log | change).to_parquet(tmp_path / "log.parquet")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths, said = ([tmp_path / "log.parquet"], [tmp_path / "items.parquet"]), []
    facts = import_dataset(*paths, None, tmp_path / "o", Recipe.of(), say=said.append)
    counts = facts["counts"]
    assert (counts["interactions"], counts["unreadable"], counts["clicks"]) == (4, 1, 3)
    assert any(line.startswith("1 of 4 rows could not be read, such as user") for line in said)


def test_rows_of_unknown_items_are_counted_and_told(tmp_path):
    log = [("a", 1, 1), ("a", 2, 2), ("a", 3, 3), ("a", 99, 4)]
    said = []
    _, facts = imported(tmp_path, log, say=said.append)
    assert facts["counts"]["of_unknown_items"] == 1
    expected = "1 of 4 rows are of items not in the table, such as user a, item i99."
    assert expected in said


@given(log_rows, st.randoms())
@settings(max_examples=25)
def test_counts_add_up_to_the_rows_that_came_in(log, random):
    """Every row is kept, repeated, of an unknown item, filtered or unreadable."""
    rows = [
        (
            random.choice([user, user, None]),
            random.choice([f"i{item}", f"i{item}", "gone", None]),
            random.choice([time, time, None]),
            random.choice([1, 5, None, float("nan")]),
        )
        for user, item, time in log
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"])
    frame["timestamp"] = frame["timestamp"].astype("Int64")
    frame["rating"] = frame["rating"].astype(object)
    with tempfile.TemporaryDirectory() as name:
        try:
            _, facts = imported(Path(name), frame, min_rating=3, negatives=0)
        except (ConfigError, DataError):
            return
    counts = facts["counts"]
    kinds = ("below_min_rating", "unreadable", "of_unknown_items", "repeated", "clicks")
    assert sum(counts[kind] for kind in kinds) == counts["interactions"] == len(rows)
    kept = {
        (user, item)
        for user, item, time, rating in rows
        if rating == 5 and None not in (user, item, time) and item != "gone"
    }
    assert counts["clicks"] == len(kept)


def test_equal_times_are_simultaneous_unless_a_column_orders_them(tmp_path):
    log = pd.DataFrame({"user_id": "u", "item_id": ["i9", "i10", "i2"], "timestamp": 7})
    log["place"] = ["2", "10", "9"]
    for name, options, histories in (
        ("plain", {}, [[], [], []]),  # nobody knows which came first
        ("ordered", {"order_by": "place"}, [[], ["i9"], ["i9", "i2"]]),
    ):
        (tmp_path / name).mkdir()
        out, facts = imported(tmp_path / name, log, negatives=0, **options)
        ids = pd.read_parquet(out / "item_ids.parquet")["original_id"]
        rows = pd.concat(
            pd.read_parquet(out / "MicroLens_1M_x1" / f"{split}.parquet")
            for split in ("train", "valid", "test")
        )
        assert [[ids[n - 1] for n in row] for row in rows["item_seq"]] == histories
        order = ["i2", "i9", "i10"] if name == "plain" else ["i9", "i2", "i10"]
        assert [ids[n - 1] for n in rows["item_id"]] == order, "by item id, or by the column"
        assert facts["counts"]["simultaneous"] == (0 if options else 3)


def test_a_rating_that_is_no_number_is_below_any(tmp_path):
    """NaN, as pandas writes a missing rating to Parquet, is the largest number to SQL."""
    log = {"user_id": ["u"] * 4, "item_id": ["i1", "i2", "i3", "i4"], "timestamp": [1, 2, 3, 4]}
    rating = pa.array([5.0, float("nan"), 4.0, 5.0])
    pq.write_table(pa.table(log | {"rating": rating}), tmp_path / "log.parquet")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths = [tmp_path / "log.parquet"], [tmp_path / "items.parquet"]
    recipe = Recipe.of(min_rating=3, negatives=0)
    counts = import_dataset(*paths, None, tmp_path / "o", recipe)["counts"]
    assert (counts["below_min_rating"], counts["clicks"]) == (1, 3)


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_a_nan_that_is_no_null_is_a_missing_value(tmp_path, column):
    """Statistics of a Parquet file leave NaN out, and DuckDB's isnan believes them."""
    values = pa.array([1.0, 2.0, float("nan"), 3.0, 4.0])
    log = {"user_id": pa.array([7.0] * 5), "item_id": values, "timestamp": pa.array([1.0] * 5)}
    log["item_id"] = pa.array([1.0, 2.0, 5.0, 3.0, 4.0])
    log[column] = pa.array([7.0, 7.0, float("nan"), 7.0, 7.0]) if column == "user_id" else values
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    pd.DataFrame({"item_id": range(1, 7)}).to_parquet(tmp_path / "items.parquet")
    paths = [tmp_path / "log.parquet"], [tmp_path / "items.parquet"]
    counts = import_dataset(*paths, None, tmp_path / "o", Recipe.of(negatives=0))["counts"]
    assert (counts["unreadable"], counts["clicks"]) == (1, 4)


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=15),
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
    st.integers(1, 10),
)
def test_tables_of_whole_users_do_not_depend_on_the_batches(clicks, sizes, chunk):
    """clicks: of each user. sizes: of batches, over and over."""
    user = np.repeat(np.arange(len(clicks)), clicks)
    cuts = [cut for cut in np.cumsum(np.resize(sizes, len(user))).tolist() if cut < len(user)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "CHUNK", chunk)
        parts, whole = (
            [table["user"].to_pylist() for table in events._whole_users(batches)]
            for batches in (
                [pa.record_batch({"user": user[start:stop]}) for start, stop in pairwise(ends)]
                for ends in ([0, *cuts, len(user)], [0, len(user)])
            )
        )
    assert parts == whole
    assert [one for part in parts for one in part] == user.tolist()
    assert all(one[-1] < other[0] for one, other in pairwise(parts)), "a user is whole"


def test_a_dataset_says_the_same_however_few_clicks_are_worked_on_at_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    log = [
        ("abcdefg"[user], item, time) for user, item, time in rng.integers(0, (7, 8, 9), (90, 3))
    ]
    made = []
    for chunk in (1 << 18, 3):
        monkeypatch.setattr(events, "CHUNK", chunk)
        monkeypatch.setattr(writing, "VALUES", 64 * chunk)
        (tmp_path / str(chunk)).mkdir()
        out, facts = imported(tmp_path / str(chunk), log, negatives=2, max_history=4)
        files = [path.relative_to(out) for path in sorted(out.rglob("*.parquet"))]
        made.append([facts["counts"], *(pq.read_table(out / path) for path in files)])
        groups = pq.ParquetFile(out / "MicroLens_1M_x1" / "train.parquet").num_row_groups
    assert made[0] == made[1]
    assert groups > 1


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "places",
    [
        [10, 9, 2],
        [2**53 + 2, 2**53 + 1, 2**53],
        [-(2**53), -(2**53) - 1, -(2**53) - 2],
        [0.5, -1.5, -2],
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_order_by_follows_numbers_exactly_even_if_they_are_text(tmp_path, form, places, as_text):
    log = pd.DataFrame({"user_id": "u", "item_id": ["i1", "i2", "i3"], "timestamp": 7})
    log["place"] = [str(place) for place in places] if as_text else places
    ITEMS.to_parquet(tmp_path / "items.parquet")
    path = tmp_path / f"log.{form}"
    if form == "csv":
        log.to_csv(path, index=False)
    elif form == "jsonl":
        log.to_json(path, orient="records", lines=True)
    else:
        log.to_parquet(path)
    recipe = Recipe.of(negatives=0, order_by="place")
    import_dataset([path], [tmp_path / "items.parquet"], None, tmp_path / "o", recipe)
    assert positions(tmp_path / "o") == ["i3", "i2", "i1"]


@pytest.mark.parametrize(
    ("column", "values", "options", "warned"),
    [
        ("Label", [1, 0, 1, 0], {}, True),
        ("is_click", ["yes", "yes", "no", "no"], {}, True),
        ("label", [1, 1, 1, 1], {}, False),
        ("click", [1, 2, 3, 1], {}, False),
        ("label", [1, 1, 1, 0], {"label_column": "label"}, False),
        ("other", [1, 0, 1, 0], {}, False),
    ],
)
def test_a_column_that_looks_like_a_label_is_warned_of(tmp_path, column, values, options, warned):
    log = pd.DataFrame({"user_id": "u", "item_id": [f"i{n}" for n in range(4)]})
    log = log.assign(timestamp=range(4), **{column: values})
    said = []
    imported(tmp_path, log, say=said.append, negatives=0, **options)
    line = f"Warning: column {column} is there but not used: every row counts as a click; give "
    line += f"--label {column} if it says which were clicked."
    assert (line in said) == warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_rating": 99}, r"log\.csv .*: 3 of 3 rows are below min_rating 99.*choose a lower"),
        ({"where": "rating = '7'"}, r"3 of 3 rows are left out by where: check its condition"),
        ({"user_column": "none"}, r"3 of 3 rows could not be read: check the columns"),
    ],
)
def test_a_log_of_which_nothing_is_left_says_why(tmp_path, options, message):
    log = pd.DataFrame({"user_id": "u", "item_id": ["i1", "i2", "i3"], "timestamp": [1, 2, 3]})
    with pytest.raises(DataError, match=message):
        imported(tmp_path, log.assign(rating=5, none=None), negatives=0, **options)
