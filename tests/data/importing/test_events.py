"""Clicks in the order of their time."""

import numpy as np
import pandas as pd
import pytest

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, imported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": [1.0, 2.0, np.nan]}, r"column timestamp, row 2: found no value"),
        ({"timestamp": [1.0, np.inf, 2.0]}, r"column timestamp, row 1: found inf"),
        ({"timestamp": [True, True, False]}, r"column timestamp: found bool"),
        ({"user_id": [1.0, np.nan, 2.0]}, r"column user_id, row 1: found no value"),
        ({"user_id": [[1], [2], [3]]}, r"column user_id: found list"),
        ({"item_id": [["i1"], ["i2"], ["i3"]]}, r"column item_id: found list"),
        ({"rating": ["a", "b", "c"]}, r"column rating: found .*string, expected numbers"),
    ],
)
def test_values_that_are_none_name_the_column(tmp_path, change, message):
    columns = {"user_id": [1, 1, 1], "item_id": ["i1", "i2", "i3"], "timestamp": [1, 2, 3]}
    columns |= {"rating": [5, 5, 5]} | change
    pd.DataFrame(columns).to_parquet(tmp_path / "log.parquet")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths = tmp_path / "log.parquet", tmp_path / "items.parquet"
    with pytest.raises(DataError, match=message):
        import_dataset(*paths, None, tmp_path / "o", Recipe.of(min_rating=2))


def test_dates_before_1970_keep_their_order(tmp_path):
    times = ["1969-12-31 23:59:58.5", "1969-12-31 23:59:59.5", "1970-01-01 00:00:00.0"]
    log = pd.DataFrame({"user_id": 1, "item_id": ["i1", "i2", "i3"]})
    log["timestamp"] = pd.to_datetime(times)
    out, _ = imported(tmp_path, log, negatives=0)
    test = pd.read_parquet(out / "MicroLens_1M_x1" / "test.parquet")
    assert test["item_seq"][0].tolist() == [2, 3]
    assert test["item_id"][0] == 4
