"""Times of any unit, zone and kind come in as what they are."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mmctr.data.click_errors import ClickLog, too_early
from mmctr.data.dataset import Dataset
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, imported, positions, written

UTC = "2024-03-31 01:30:00.25"  # half past three in Berlin, as summer time begins


def test_dates_before_1970_keep_their_order(tmp_path):
    times = ["1969-12-31 23:59:58.5", "1969-12-31 23:59:59.5", "1970-01-01 00:00:00.0"]
    log = pd.DataFrame({"user_id": 1, "item_id": ["i1", "i2", "i3"]})
    log["timestamp"] = pd.to_datetime(times)
    out, _ = imported(tmp_path, log, negatives=0)
    test = pd.read_parquet(out / "MicroLens_1M_x1" / "test.parquet")
    assert test["item_seq"][0].tolist() == [2, 3]
    assert test["item_id"][0] == 4


@pytest.mark.parametrize(
    "times",
    [
        ["2024-03-31 01:30:00.25", "2024-03-31 01:30:00.5", "2024-03-31 01:30:01"],
        ["2024-03-31T01:30:00.25Z", "2024-03-31T01:30:00.5Z", "2024-03-31T01:30:01Z"],
        ["2024-03-31T03:30:00.25+02:00", "2024-03-31T01:30:00.5+00:00", "2024-03-31 01:30:01"],
        [
            "2024-03-31 03:30:00.25 Europe/Berlin",
            "2024-03-31 03:30:00.5 Europe/Berlin",
            "2024-03-31 03:30:01 Europe/Berlin",
        ],
        [1711848600.25, 1711848600.5, 1711848601.0],
        ["1711848600.25", "1711848600.5", "1711848601"],
        [1711848600250, 1711848600500, 1711848601000],
        [1711848600250000, 1711848600500000, 1711848601000000],
        [1711848600250000000, 1711848600500000000, 1711848601000000000],
        pd.to_datetime([UTC, "2024-03-31 01:30:00.50", "2024-03-31 01:30:01.00"]).as_unit("ms"),
        pd.to_datetime([UTC, "2024-03-31 01:30:00.50", "2024-03-31 01:30:01.00"]).as_unit("ns"),
        pd.to_datetime([UTC, "2024-03-31 01:30:00.50", "2024-03-31 01:30:01.00"])
        .tz_localize("UTC")
        .tz_convert("Europe/Berlin"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_times_of_any_unit_and_zone_keep_their_order_within_a_second(tmp_path, times, suffix):
    """The last of the three is the test click, whatever the order of the rows."""
    log = pd.DataFrame({"user_id": "u", "item_id": ["i5", "i3", "i1"], "timestamp": times})
    log = log.iloc[[2, 0, 1]]
    path = tmp_path / f"log.{suffix}"
    if suffix == "csv":
        log.to_csv(path, index=False)
    else:
        log.to_parquet(path)
    ITEMS.to_parquet(tmp_path / "items.parquet")
    said = []
    paths = [path], [tmp_path / "items.parquet"]
    import_dataset(*paths, None, tmp_path / "o", Recipe.of(negatives=1), say=said.append)
    test = pd.read_parquet(tmp_path / "o" / "MicroLens_1M_x1" / "test.parquet")
    ids = pd.read_parquet(tmp_path / "o" / "item_ids.parquet")["original_id"]
    assert [ids[number - 1] for number in test["item_seq"][0]] == ["i5", "i3"]
    assert ids[test["item_id"][0] - 1] == "i1"
    (line,) = [line for line in said if line.startswith("timestamp: ")]
    assert "from 2024-03-31T01:30:00 to 2024-03-31T01:30:01 (UTC)" in line
    assert not [line for line in said if "Warning" in line]


def test_days_and_doubtful_dates_are_told(tmp_path):
    said = []
    log = [("a", number, 19_800 + number) for number in range(4)]
    imported(tmp_path, log, say=said.append)
    assert "timestamp: days, from 2024-03-18T00:00:00 to 2024-03-21T00:00:00 (UTC)" in said
    (tmp_path / "old").mkdir()
    imported(tmp_path / "old", [("a", number, number) for number in range(4)], say=said.append)
    assert any("lies before 1990 or in the future" in line for line in said)


@pytest.mark.parametrize(
    ("times", "first", "border"),
    [
        ([20191231, 20200101, 20200229], "2019-12-31T00:00:00", 20200229),
        ([19991213100733, 19991213100734, 20000229235959], "1999-12-13T10:07:33", 20000229235959),
        ([199912131007, 199912131008, 202002292359], "1999-12-13T10:07:00", "2020-02-29"),
        ([20191231.0, 20200101.0, 20200229.0], "2019-12-31T00:00:00", "2020-02-29"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_dates_of_digits_are_dates(tmp_path, times, first, border, form):
    log = pd.DataFrame({"user_id": "u", "item_id": ["i3", "i2", "i1"], "timestamp": times})
    log = pd.concat([log, log.iloc[:1].assign(timestamp=20201399, item_id="i9")])  # no date
    path, said = tmp_path / f"log.{form}", []
    log.to_csv(path, index=False) if form == "csv" else log.to_parquet(path)
    ITEMS.to_parquet(tmp_path / "items.parquet")
    recipe = Recipe.of(negatives=0, split="date", valid_from=int(times[1]), test_from=border)
    paths = [path], [tmp_path / "items.parquet"]
    counts = import_dataset(*paths, None, tmp_path / "o", recipe, say=said.append)["counts"]
    assert any(f"timestamp: dates of digits (yyyymmdd), from {first}" in line for line in said)
    assert [counts[name] for name in ("train", "valid", "test", "unreadable")] == [1] * 4
    assert positions(tmp_path / "o") == ["i3", "i2", "i1"]


@pytest.mark.parametrize(
    ("times", "word"),
    [
        (["1", "2", "3"], "oops"),
        (["1", "2", "3"], "NULL"),
        (["1.5", "2.5", "3"], "2020-01-01"),
        (["2020-01-01", "2020-01-02", "2020-01-03"], "1577836800"),
        (["1577836800", "1577836801", "1577836803"], "nan"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_word_among_times_is_one_unreadable_row(tmp_path, times, word, form):
    times = [times[0], word, *times[1:], ""]
    log = pd.DataFrame({"user_id": "u", "item_id": [f"i{n}" for n in range(5)], "timestamp": times})
    path, said = tmp_path / f"log.{form}", []
    log.to_csv(path, index=False) if form == "csv" else log.to_json(
        path, orient="records", lines=True
    )
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths = [path], [tmp_path / "items.parquet"], None, tmp_path / "o"
    counts = import_dataset(*paths, Recipe.of(negatives=0), say=said.append)["counts"]
    assert (counts["unreadable"], counts["clicks"]) == (2, 3)
    assert positions(tmp_path / "o") == ["i0", "i2", "i3"]
    assert any(line.startswith("2 of 5 rows could not be read") for line in said)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "times",
    [
        ["2024-03-31 03:30:00.25+02:00", None, "2024-04-01", "no date"],
        [1711848600.25, None, 1711929600, float("nan")],
        ["1711848600250", "", "1711929600000", "n/a"],
        pd.to_datetime([UTC, None, "2024-04-01", None], format="ISO8601"),
    ],
)
def test_when_items_came_is_kept_in_nanoseconds(tmp_path, times, form):
    """Items are numbered by their ids, whatever the order of the table; i2 and i3 do not say."""
    items = pd.DataFrame({"item_id": ["i1", "i2", "i0", "i3"], "listed": times})
    days = 86_400 * 10**9
    expected = [19_814 * days, (19_813 * 86_400 + 5_400) * 10**9 + 250_000_000, None, None]
    log = pd.DataFrame([("a", f"i{n}", 1_711_848_000 + n) for n in range(4)])
    log.columns = ["user_id", "item_id", "timestamp"]
    paths = [written(tmp_path, "log", log, "csv")], [written(tmp_path, "items", items, form)]
    said, recipe = [], Recipe.of(items_time_column="listed", negatives=0)
    import_dataset(*paths, None, tmp_path / "o", recipe, say=said.append)
    column = pq.read_table(tmp_path / "o" / "item_feature.parquet")["available_since"]
    assert column.to_pylist() == expected
    (line,) = [line for line in said if line.startswith("items came: listed: ")]
    assert line.endswith("to 2024-04-01T00:00:00 (UTC); 2 items without")


def test_clicks_before_an_item_came_are_found_in_an_import(tmp_path):
    """b clicks i2 a minute before it comes; of i3 nothing is known."""
    minute = 1_711_848_600
    log = [("a", n, minute + 60 * n) for n in range(4)] + [
        ("b", 3, minute),
        ("b", 2, minute + 60),
        ("b", 1, minute + 120),
    ]
    items = ITEMS.assign(
        available_since=[str(minute), str(minute + 60), str(minute + 120), None, *[None] * 8]
    )
    out, _ = imported(tmp_path, log, items, negatives=1)
    data = Dataset.load(out)
    log = ClickLog(data)
    scores = dict(zip(data.user_names(log.users), too_early(log), strict=True))
    assert scores == {"a": 0, "b": 1}


def test_a_click_of_a_day_may_be_later_on_that_day(tmp_path):
    items = ITEMS.assign(available_since=[f"2024-03-{18 + n} 09:30:00" for n in range(12)])
    log = [("a", n, 19_800 + n) for n in range(5)] + [("b", n, 19_799 + n) for n in range(5)]
    out, _ = imported(tmp_path, log, items, negatives=1)
    data = Dataset.load(out)
    log = ClickLog(data)
    assert dict(zip(data.user_names(log.users), too_early(log), strict=True)) == {"a": 0, "b": 5}


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (None, "items.parquet has no column listed, only "),
        (["soon"] * 12, "items.parquet, column listed: found soon, expected numbers or dates"),
        ([[1]] * 12, r"items.parquet, column listed: found bigint\[\], expected numbers or dates"),
    ],
)
def test_items_times_that_cannot_be_used_are_one_sentence(tmp_path, listed, message):
    items = ITEMS if listed is None else ITEMS.assign(listed=listed)
    with pytest.raises(DataError, match=message):
        imported(tmp_path, [("a", 1, 1), ("a", 2, 2)], items, items_time_column="listed")


def test_years_of_items_are_doubted(tmp_path):
    said, items = [], ITEMS.assign(available_since=1995)
    imported(tmp_path, [("a", n, 19_800 + n) for n in range(4)], items, say=said.append)
    line = "Warning: available_since lies before 1990 or in the future: is it when the items came?"
    assert line in said
