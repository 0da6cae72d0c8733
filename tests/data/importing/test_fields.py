"""Fields of items, users and the context."""

import math
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, DataError
from tests.data.importing.logs import ITEMS, imported, splits_of

BINS = 16


def decoded(fields, codes):
    """What codes [n, fields] stand for: a dictionary of texts by field name for each row."""
    names, words = [field.name for field in fields], [field.labels() for field in fields]
    return [
        {
            name: words[place][code]
            for place, (name, code) in enumerate(zip(names, row, strict=True))
        }
        for row in codes
    ]


def expected_bin(values, value):
    """The code of a number beside those of train: missing, or how many borders it has reached."""
    known = sorted(one for one in values if one is not None and math.isfinite(one))
    if value is None or not math.isfinite(value):
        return 0
    borders = {known[math.ceil(part * len(known) / BINS) - 1] for part in range(1, BINS) if known}
    return 1 + sum(border <= value for border in borders if border > known[0])


words = st.sampled_from(["x", " x", "X", 'a "b"', "c, d; e", "it's", "", " ", None, "é"])
numbers = st.sampled_from([None, 0.5, -3.0, 7.0, 1e300, 8.0]) | st.floats(-5, 5)
rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 7), st.integers(1, 9), words, numbers),
    min_size=1,
    max_size=60,
)


@settings(max_examples=20)
@given(
    rows, st.lists(words, min_size=12, max_size=12), st.sampled_from(["csv", "jsonl", "parquet"])
)
def test_codes_are_those_of_a_naive_loop(log, brands, form):
    """Whatever valid and test have, train alone says which values are known."""
    log = [("e", 8, 1, "x", 0.5), ("e", 9, 5, "y", 1.5), ("e", 10, 9, None, None), *log]
    frame = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp", "de vice", "price"])
    frame = frame.drop_duplicates(["user_id", "item_id"])
    frame["item_id"] = "i" + frame["item_id"].astype(str)
    users = pd.DataFrame({"user_id": list("abcx"), "land": ["r", "s", None, "r"]})
    options = {"context_fields": "de vice:category,price", "item_fields": "brand:category"}
    options |= {"user_fields": "land", "split": "date", "valid_from": 5, "test_from": 7}
    items = ITEMS.assign(brand=brands)
    with tempfile.TemporaryDirectory() as name:
        out, _ = imported(Path(name), frame, items, users=users, form=form, **options, negatives=1)
        dataset, shown = Dataset.load(out), splits_of(out)
        ids = pd.read_parquet(out / "user_ids.parquet").set_index("user_id")["original_id"]
    said = frame.set_index(["user_id", "item_id"])[["de vice", "price"]].to_dict("index")
    learned = frame[frame["timestamp"] < 5]
    train_items = set(shown["train"]["item_id"] - 1)
    lands = dict(zip(users["user_id"], users["land"], strict=True))

    def known(value, values):
        found, *values = (one.strip() if isinstance(one, str) else "" for one in (value, *values))
        return found if found and found in values else "unknown"

    for number, row in enumerate(decoded(dataset.catalog.fields, dataset.catalog.field_codes)[1:]):
        assert row["brand"] == known(brands[number], [brands[item] for item in train_items])
    # A negative is asked for in the context of its click.
    prices = [price for price in learned["price"] for _ in range(2)]
    prices = [None if price is None or math.isnan(price) else price for price in prices]
    for split, table in shown.items():
        rows = dataset.split(split)
        found, clicked = decoded(dataset.row_fields, rows.fields), None
        for place, row in enumerate(table.itertuples()):
            user = ids[row.user_id]
            clicked = said[user, f"i{row.item_id - 1}"] if row.label else clicked
            assert list(found[place]) == ["land", "de vice", "price"], "users' fields come first"
            assert found[place]["land"] == known(
                lands.get(user), [lands.get(one) for one in learned["user_id"]]
            )
            assert found[place]["de vice"] == known(clicked["de vice"], learned["de vice"])
            assert rows.fields[place, 2] == expected_bin(prices, clicked["price"])


def log_of(**columns):
    """Six clicks of one user, a day each, and columns beside them."""
    log = {"user_id": "a", "item_id": [f"i{n}" for n in range(6)], "timestamp": range(1, 7)}
    return pd.DataFrame(log | columns)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_fields_may_be_named_like_columns_that_exist(tmp_path, form):
    log = log_of(label=list("uvwxyz"), time=list("mnopqr"), user=[*"kkkllL"], age=[*"ABCDEF"])
    items = ITEMS.assign(
        id=[f"I{n}" for n in range(12)], number=[f"N{n}" for n in range(12)], own_id="o", title="t"
    )
    users = pd.DataFrame({"user_id": ["a", "b"], "user": ["U", "V"], "age": ["old", "new"]})
    out, _ = imported(
        tmp_path,
        log,
        items,
        users=users,
        form=form,
        context_fields="label,time,user,age,user_id,item_id",
        item_fields="id,number,own_id,item_id,title",
        user_fields="user,age,user_id",
    )
    dataset = Dataset.load(out)
    assert [field.owner for field in dataset.row_fields] == ["user"] * 3 + ["context"] * 6
    train = decoded(dataset.row_fields[3:], dataset.train.fields[:, 3:])[0]
    row = {"label": "u", "time": "m", "user": "k", "age": "A", "user_id": "a", "item_id": "i0"}
    assert train == row
    assert decoded(dataset.row_fields[:3], dataset.train.fields[:, :3])[0] == {
        "user": "U",
        "age": "old",
        "user_id": "a",
    }
    codes = dataset.catalog.field_codes
    expected = {"id": "I0", "number": "N0", "own_id": "o", "item_id": "i0", "title": "t"}
    assert decoded(dataset.catalog.fields, codes)[1] == expected


ZONED = ["2024-05-05T23:30:00+02:00", "2024-05-06 03:00:00Z", "2024-05-06 10:00", None]
ZONED += ["2024-05-06 10:00:00", "2024-05-06T12:00:00-03:00"]
HOURS = ["21", "03", "10", "unknown", "10", "unknown"]  # the last one is of test alone


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_times_become_hours_and_weekdays_in_utc(tmp_path, form):
    moments = [1714944600 + 40_000 * number for number in range(6)]
    log = log_of(timestamp=moments, seen=ZONED)
    out, _ = imported(tmp_path, log, form=form, context_fields="timestamp,seen", negatives=0)
    dataset = Dataset.load(out)
    assert [field.name for field in dataset.row_fields] == [
        f"{name} {part}" for name in ("timestamp", "seen") for part in ("hour", "weekday")
    ]
    rows = [
        row
        for split in ("train", "valid", "test")
        for row in decoded(dataset.row_fields, dataset.split(split).fields)
    ]
    for number, (row, moment) in enumerate(zip(rows, moments, strict=True)):
        at = datetime.fromtimestamp(moment, UTC)
        if number < 4:
            assert row["timestamp hour"] == f"{at:%H}"
            assert row["timestamp weekday"] == f"{at:%A}"
        assert row["seen hour"] == HOURS[number]
    assert [row["seen weekday"] for row in rows[:4]] == ["Sunday", "Monday", "Monday", "unknown"]


@pytest.mark.parametrize(
    "dates", [pd.date_range("2024-05-05 23:00", periods=6, freq="h", tz="Europe/Berlin"), None]
)
def test_times_of_a_typed_table_are_in_utc(tmp_path, dates):
    dates = pd.date_range("2024-05-05 21:00", periods=6, freq="h") if dates is None else dates
    out, _ = imported(tmp_path, log_of(seen=dates), context_fields="seen", form="parquet")
    dataset = Dataset.load(out)
    first = decoded(dataset.row_fields, dataset.train.fields)[0]
    assert first == {"seen hour": "21", "seen weekday": "Sunday"}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_kinds_are_found_out_alike_and_can_be_said(tmp_path, form):
    log = log_of(n=[1, 2, 3, 1, 2, 9], x=[0.5, None, 1, 2, 3, 4], word=["1", "b", *"cdef"])
    log["code"] = [3, 1, 3, 1, 3, 1]
    options = {"context_fields": "n, x ,word,code:category", "form": form}
    out, _ = imported(tmp_path, log, **options, negatives=0)
    fields = {field.name: field for field in Dataset.load(out).row_fields}
    assert fields["n"].borders == (2.0, 3.0), "each of 1, 2 and 3 has its bin"
    assert fields["x"].borders == (1.0, 2.0)
    assert fields["word"].values == ("1", "b", "c", "d")
    assert fields["code"].values == ("1", "3")


def test_the_order_of_rows_does_not_matter(tmp_path):
    """Not even between rows of one user, item and time that differ in nothing but their context."""
    log = [(u, f"i{n}", n, d) for u in "ab" for n in range(5) for d in ("x", None, "y")]
    frame = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp", "device"])
    users = pd.DataFrame({"user_id": list("ab"), "age": [30, 50]})
    items = ITEMS.assign(price=range(12))
    options = {"context_fields": "device", "item_fields": "price", "user_fields": "age"}
    outs = [
        imported(
            tmp_path,
            frame.sample(frac=1, random_state=seed),
            items.sample(frac=1, random_state=seed),
            users=users.sample(frac=1, random_state=seed),
            out=f"out{seed}",
            **options,
        )[0]
        for seed in (0, 1)
    ]
    first, second = (
        {p.relative_to(o): p.read_bytes() for p in o.rglob("*.[pj][as]*")} for o in outs
    )
    assert len(first) >= 10 and first == second


def test_fields_are_part_of_the_fingerprint_and_none_leave_no_file(tmp_path):
    prints = []
    users = pd.DataFrame({"user_id": ["a"], "age": [3]})
    for number, options in enumerate(
        (
            {},
            {"context_fields": "d"},
            {"item_fields": "title"},
            {"user_fields": "age", "users": users},
        )
    ):
        out, _ = imported(tmp_path, log_of(d="x"), out=f"out{number}", **options)
        prints.append(Dataset.load(out).fingerprint)
        files = {path.name for path in out.iterdir() if "fields" in path.name}
        kinds = {"item_fields": "item_fields.parquet", "user_fields": "user_fields.parquet"}
        expected = {file for option, file in kinds.items() if option in options}
        assert files == (expected | {"fields.json"} if options else set())
    assert len(set(prints)) == 4
    plain = Dataset.load(tmp_path / "out0")
    assert plain.row_fields == plain.catalog.fields == ()
    assert plain.train.fields is None and plain.catalog.field_codes is None


def test_a_field_without_any_value_is_unknown_everywhere(tmp_path):
    out, _ = imported(tmp_path, log_of(d=None, n=[math.nan] * 6), context_fields="d,n:number")
    dataset = Dataset.load(out)
    assert not dataset.train.fields.any()
    assert [field.labels() for field in dataset.row_fields] == [["unknown"], ["unknown", "any"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_fields": "d:colour"}, "kind 'colour', expected one of category, number, time"),
        ({"context_fields": "colour"}, "has no column colour, only user_id, item_id, timestamp, d"),
        ({"context_fields": "d,d:category"}, "'d' is asked for twice"),
        ({"context_fields": "d:number"}, "column d: found 'x', expected numbers"),
        ({"item_fields": "colour"}, "has no column colour"),
        ({"item_fields": "size:time"}, "column size: found bigint, expected dates"),
        ({"user_fields": "age"}, "give both --users FILE and --user-fields"),
        ({"users": pd.DataFrame({"user_id": ["a"]})}, "give both --users FILE and --user-fields"),
        (
            {"users": pd.DataFrame({"user_id": ["a", "a"], "age": 1}), "user_fields": "age"},
            "column user_id: found a again, expected it once",
        ),
        (
            {"users": pd.DataFrame({"who": ["a"], "age": 1}), "user_fields": "age"},
            "has no column user_id, only who, age",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, options, message):
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        imported(tmp_path, log_of(d="x"), ITEMS.assign(size=1), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
