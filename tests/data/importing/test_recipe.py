"""The options of an import."""

from pathlib import Path

import pandas as pd
import pytest

from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, imported


def test_options_name_columns_ratings_and_dates(tmp_path):
    log = pd.DataFrame(
        {
            "who": [7, 7, 7, 8, 8, 9, 7],
            "what": ["i1", "i2", "i3", "i1", "i2", "gone", "i4"],
            "when": pd.date_range("2024-01-01", periods=7).astype(str),
            "stars": [5, 2, 4, 4, 5, 5, 5],
        }
    )
    options = {"user_column": "who", "item_column": "what", "time_column": "when"}
    items = ITEMS.rename(columns={"item_id": "what"})
    out, facts = imported(
        tmp_path, log, items, **options, rating_column="stars", min_rating=4, negatives=1
    )
    assert facts["counts"]["below_min_rating"] == 1
    assert facts["counts"]["of_unknown_items"] == 1
    users = pd.read_parquet(out / "user_ids.parquet")
    assert users["original_id"].tolist() == ["7", "8"], "as text, by length and alphabet"


@pytest.mark.parametrize("negatives", [0, 1])
def test_without_negatives_it_is_told_at_once(tmp_path, negatives):
    said = []
    log = [("a", number, number) for number in range(3)]
    imported(tmp_path, log, negatives=negatives, say=said.append)
    assert said[0].startswith("Warning: without negatives") == (negatives == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log": [("a", 1, 1)], "min_rating": 3}, "has no column rating, which min_rating needs"),
        ({"log": [("a", 99, 1)]}, "has no row on an item of the items table"),
        ({"time_column": "when"}, "has no column when, only user_id, item_id, timestamp"),
        (
            {"items": pd.concat([ITEMS, ITEMS[:1]])},
            "item_id: found i0 again, expected each item",
        ),
        ({"covers": Path("nowhere")}, "nowhere is no file, no folder of tables"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        imported(tmp_path, **({"log": [("a", 1, 1), ("a", 2, 2), ("a", 3, 3)]} | change))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*")), "nothing half-written is left"
