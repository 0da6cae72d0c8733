"""Events come in the order of their users, their times, and what else orders them."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.data.importing.engine import engine
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sorting import Query, sort_part
from mmctr.data.importing.sources import Source
from mmctr.data.importing.steps import import_dataset
from tests.data.importing.logs import ITEMS, imported, positions, written


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
    path = written(tmp_path, "log", log, form)
    recipe = Recipe.of(negatives=0, order_by="place")
    import_dataset([path], [tmp_path / "items.parquet"], None, tmp_path / "o", recipe)
    assert positions(tmp_path / "o") == ["i3", "i2", "i1"]


def test_users_are_numbered_by_the_length_of_their_ids_then_by_the_alphabet(tmp_path):
    rows = pd.DataFrame({"user_id": ["é", "10", "9", "b", "10", "Z"], "item": range(6)})
    rows["time"] = [1, 5, 1, 1, 4, 1]
    query = Query(
        "",
        "",
        'SELECT "user"::INTEGER AS user, item, time FROM {known} JOIN users '
        "USING (user_id) ORDER BY user, time",
    )
    with engine([], tmp_path, 1.0) as connection:
        connection.register("arriving", pa.Table.from_pandas(rows))
        source = Source(connection, "log", [], "arriving", {}, [], "", "parquet")
        source.create("kinds", "SELECT DISTINCT 'known' AS kind, user_id FROM arriving", "read")
        part = sort_part(source, query, "arriving", tmp_path)
    users = pq.read_table(tmp_path / "user_ids.parquet").to_pydict()
    assert users == {"user_id": [1, 2, 3, 4, 5], "original_id": ["9", "Z", "b", "é", "10"]}
    assert pq.read_table(part.path)["item"].to_pylist() == [2, 5, 3, 0, 4, 1]
    assert part.counts == {"events": 6, "clicks": 6, "ties": 0, "impressions": 0, "users": 5}
