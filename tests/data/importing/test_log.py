"""The columns of a log are understood, and what became of its rows is told."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, imported


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
