"""Logs that say what was shown and not clicked."""

import tempfile
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, DataError
from tests.data.importing.logs import imported, splits_of

DAY = 86_400 * 10**9
shown_rows = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 7),
        st.integers(1, 9),
        st.booleans(),
        st.sampled_from([None, "x", "y"]),
    ),
    min_size=1,
    max_size=50,
)


def frame_of(log):
    """A log of rows (user, item number, day, label, impression)."""
    columns = ["user_id", "item_id", "timestamp", "clicked", "page"]
    frame = pd.DataFrame(log, columns=columns)
    return frame.assign(item_id="i" + frame["item_id"].astype(str), clicked=frame["clicked"] * 1)


def expected_impressions(log, together):
    """What each impression showed, by (user, first day, page): the day and label of each item,
    which counts once, as clicked if it ever was."""
    groups = {}
    for user, item, day, clicked, page in log:
        page = page if together else None
        groups.setdefault((user, page if page is not None else ("day", day)), []).append(
            (not clicked, day, item)
        )
    impressions = {}
    for (user, page), rows in groups.items():
        items = {}
        for missed, day, item in sorted(rows):
            items.setdefault(item, (day, not missed))
        impressions[user, min(day for _, day, _ in rows), page] = items
    return impressions


def clicks_before(impressions, user, time):
    """The clicks of a user on days before one, those of a day in order of their items."""
    return sorted(
        (day, item)
        for (who, _, _), shown in impressions.items()
        for item, (day, clicked) in shown.items()
        if who == user and clicked and day < time
    )


def in_days(impressions, user, history):
    """A history's items with the days on which they were clicked, which may only rise."""
    left = clicks_before(impressions, user, 99)
    found = []
    for item in history:
        day = min(day for day, other in left if other == item)
        left.remove((day, item))
        assert not found or day >= found[-1][0], "oldest first"
        found.append((day, item))
    return sorted(found)


def split_of(impressions, user, time):
    """Where a row belongs by its own time among its user's times with a click."""
    steps = sorted(
        {
            t
            for (u, t, _), shown in impressions.items()
            if u == user and any(clicked for _, clicked in shown.values())
        }
    )
    if len(steps) < 3 or time <= steps[-3]:
        return "train"
    return "valid" if time <= steps[-2] else "test"


@settings(max_examples=30)
@given(shown_rows, st.booleans(), st.randoms())
def test_rows_are_those_of_a_naive_loop(log, together, random):
    expected = expected_impressions(log, together)
    labels = [clicked for shown in expected.values() for _, clicked in shown.values()]
    splits = {key: split_of(expected, *key[:2]) for key in expected}
    options = {"label_column": "clicked", "impression_column": "page" if together else None}
    with tempfile.TemporaryDirectory() as name:
        if len(set(labels)) < 2:
            with pytest.raises(DataError, match=r"clicks? among"):
                imported(Path(name), frame_of(log), **options)
            return
        if "test" not in splits.values():
            with pytest.raises(ConfigError, match="No user has three"):
                imported(Path(name), frame_of(log), **options)
            return
        out, facts = imported(Path(name), frame_of(log), **options)
        frames = splits_of(out)
        users = pd.read_parquet(out / "user_ids.parquet").set_index("user_id")["original_id"]
        assert Dataset.load(out).negatives_from == "shown"
        assert Dataset.load(out).negative_sampling is None
        shuffled = random.sample(log, len(log))
        other, _ = imported(Path(name), frame_of(shuffled), **options, out="other")
        for split in frames:
            part = f"MicroLens_1M_x1/{split}.parquet"
            assert (other / part).read_bytes() == (out / part).read_bytes(), "order matters"
    rows = pd.concat([frame.assign(split=name) for name, frame in frames.items()])
    rows["user"], rows["day"] = rows["user_id"].map(users), rows["time"] // DAY
    found = Counter(
        (row.user, row.day, row.item_id - 1, row.label, row.split) for row in rows.itertuples()
    )
    assert found == Counter(
        (user, day, item, int(clicked), splits[user, time, page])
        for (user, time, page), shown in expected.items()
        for item, (day, clicked) in shown.items()
    )
    starts = defaultdict(set)  # an item may be in several impressions of one day
    for (user, time, _), shown in expected.items():
        for item, (day, clicked) in shown.items():
            starts[user, day, item, int(clicked)].add(time)
    for row in rows.itertuples():
        key = row.user, row.day, row.item_id - 1, row.label
        histories = [clicks_before(expected, row.user, time) for time in starts[key]]
        assert in_days(expected, row.user, row.item_seq - 1) in histories
    assert ("impression_id" in rows) == together
    if together:
        pages = rows.groupby("impression_id").agg(
            user=("user", "first"), items=("item_id", frozenset)
        )
        assert Counter(pages.itertuples(index=False, name=None)) == Counter(
            (user, frozenset(item + 1 for item in shown))
            for (user, _, _), shown in expected.items()
        )
    counts = facts["counts"]
    assert counts["repeated"] == len(log) - len(labels)
    assert (counts["clicks"], counts["not_clicked"]) == (sum(labels), len(labels) - sum(labels))
    assert sum(counts[split] for split in frames) == len(labels)


LOG = [("a", n, n, n != 2, None) for n in range(6)] + [("b", 1, 1, False, None)]


@pytest.mark.parametrize(
    ("values", "options", "form"),
    [
        (["yes", "No"], {}, "csv"),
        ([True, False], {}, "parquet"),
        ([True, False], {}, "jsonl"),
        ([1.0, 0.0], {}, "parquet"),
        ([1.0, 0.0], {}, "csv"),
        ([Decimal("1.00"), Decimal("0.00")], {}, "parquet"),
        (["t", "f"], {}, "jsonl"),
        (["Purchase", "view"], {"click": "purchase"}, "csv"),
        (["cart", "view"], {"click": "purchase, cart"}, "jsonl"),
        ([4.0, 3.0], {"click": 4}, "parquet"),
        ([4, 3], {"click": 4.0}, "csv"),
        ([True, False], {"click": True}, "parquet"),
        ([4.0, 3.0], {"min_rating": 3.5}, "jsonl"),
        (["4", "3"], {"min_rating": 4}, "csv"),
    ],
)
def test_labels_of_any_writer_are_understood(tmp_path, values, options, form):
    log = frame_of(LOG)
    log["clicked"] = [values[0] if label else values[1] for label in log["clicked"]]
    out, facts = imported(tmp_path, log, label_column="clicked", form=form, **options)
    rows = pd.concat(splits_of(out).values())
    found = Counter(zip(rows["user_id"], rows["item_id"] - 1, rows["label"], strict=True))
    assert found == {(1 if user == "a" else 2, n, int(label)): 1 for user, n, _, label, _ in LOG}
    assert facts["negatives"] == ("outcome" if "min_rating" in options else "shown")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_word_for_a_click_that_no_row_has_is_told_with_the_nearest(tmp_path, form):
    log, said = frame_of(LOG), []
    events = ["Purchase" if label else "view" for label in log["clicked"]]
    log["clicked"] = ["cart", *events[1:]]
    options = {"label_column": "clicked", "form": form, "say": said.append}
    _, facts = imported(tmp_path, log, click="purchase,Purchases, vieuw,", **options)
    assert facts["counts"]["clicks"] == log["clicked"].eq("Purchase").sum()
    file = tmp_path / f"log.{form}"
    assert [line for line in said if line.startswith("Warning: parameter")] == [
        f"Warning: parameter 'click' names {word}, which column clicked of {file} never has: the "
        f"nearest that it has is {nearest}."
        for word, nearest in (("purchases", "purchase"), ("vieuw", "view"))
    ]
    said.clear()
    imported(tmp_path, log, click="purchase,cart", out="other", **options)
    assert not [line for line in said if line.startswith("Warning: parameter")]


def test_of_many_words_that_no_row_has_few_are_told_and_the_others_counted(tmp_path):
    said, words = [], ",".join(f"word{number}" for number in range(12))
    options = {"label_column": "clicked", "say": said.append}
    imported(tmp_path, frame_of(LOG), click=f"1,{words}", **options)
    told = [line for line in said if line.startswith("Warning: parameter")]
    assert all(f" names word{number}, which" in told[number] for number in range(9))
    assert told[-1] == (
        "Warning: parameter 'click' names 3 more words that column clicked of "
        f"{tmp_path / 'log.csv'} never has."
    )
    assert len(told) == 10


@pytest.mark.parametrize("nothing", [None, " "])
def test_words_for_clicks_of_an_empty_column_are_one_sentence(tmp_path, nothing):
    log = frame_of(LOG).assign(clicked=nothing)
    with pytest.raises(DataError, match=r"column clicked: found no value, expected 'buy'"):
        imported(tmp_path, log, label_column="clicked", click="buy")


def test_a_missing_label_is_counted_as_unreadable(tmp_path):
    log = frame_of(LOG)
    log["clicked"] = log["clicked"].astype(object)
    log.loc[0, "clicked"] = None
    for number, (form, click) in enumerate((("csv", None), ("jsonl", 1), ("parquet", None))):
        options = {"label_column": "clicked", "click": click, "out": f"out{number}"}
        _, facts = imported(tmp_path, log, form=form, **options)
        counts = facts["counts"]
        assert (counts["unreadable"], counts["clicks"], counts["not_clicked"]) == (1, 4, 2)


def test_an_item_repeated_at_one_time_is_clicked_whatever_the_order(tmp_path):
    rows = [("a", 1, 1, False, 1), ("a", 1, 1, True, 2), ("a", 2, 1, False, 3)]
    rows += [("a", n, n, True, 0) for n in (3, 4, 5)]
    out, facts = imported(tmp_path, frame_of(rows), label_column="clicked", order_by="page")
    train = splits_of(out)["train"]
    assert train[["item_id", "label"]].to_numpy().tolist() == [[2, 1], [3, 0], [4, 1]]
    assert facts["counts"]["repeated"] == 1


NESTED = [
    ("a", 1, ["i1", "i2"], ["i1"]),
    ("a", 2, ["i2", "i3"], ["i3"]),
    ("a", 3, [], []),
    ("a", 4, ["i4", "i1", "i4"], ["i4", "i5"]),
    ("b", 1, ["i1"], []),
    ("a", 5, ["gone", "i6"], ["i6"]),
]


def nested(as_value):
    """Impressions that stand in a row each, their lists made to values."""
    rows = [(user, time, as_value(shown), as_value(clicks)) for user, time, shown, clicks in NESTED]
    return pd.DataFrame(rows, columns=["user_id", "timestamp", "shown", "clicks"])


@pytest.mark.parametrize(
    ("as_value", "form"),
    [
        (list, "parquet"),
        (list, "jsonl"),
        (str, "csv"),
        (lambda items: str(items).replace("'", '"'), "csv"),
        (" ".join, "csv"),
        (",".join, "jsonl"),
        ("|".join, "parquet"),
        (lambda items: "[" + " ".join(map(repr, items)) + "]", "csv"),
        ("mind", "csv"),
        ("mind", "jsonl"),
    ],
)
def test_impressions_that_stand_in_a_row_each(tmp_path, as_value, form):
    options = {"shown_column": "shown", "clicked_column": "clicks"}
    log = nested(list if as_value == "mind" else as_value)
    if as_value == "mind":
        log["shown"] = [
            " ".join(
                f"{item}-{int(item in clicks)}"
                for item in [*shown, *(one for one in clicks if one not in shown)]
            )
            for shown, clicks in zip(log["shown"], log.pop("clicks"), strict=True)
        ]
        del options["clicked_column"]
    out, facts = imported(tmp_path, log, form=form, **options)
    frames = splits_of(out)
    found = {
        name: [
            (row.user_id, row.time // DAY, row.item_id - 1, row.label, tuple(row.item_seq - 1))
            for row in frame.itertuples()
        ]
        for name, frame in frames.items()
    }
    assert found["train"] == [
        (1, 1, 1, 1, ()),
        (1, 1, 2, 0, ()),
        (1, 2, 2, 0, (1,)),
        (1, 2, 3, 1, (1,)),
        (2, 1, 1, 0, ()),
    ]
    assert found["valid"] == [
        (1, 4, item, label, (1, 3)) for item, label in ((1, 0), (4, 1), (5, 1))
    ]
    assert found["test"] == [(1, 5, 6, 1, (1, 3, 4, 5))]
    ids = [frame["impression_id"].tolist() for frame in frames.values()]
    assert ids == [[1, 1, 2, 2, 5], [3, 3, 3], [4]]
    counts = facts["counts"]
    assert counts["empty_impressions"] == 1
    kinds = ("unreadable", "of_unknown_items", "repeated", "clicks", "not_clicked")
    assert sum(counts[kind] for kind in kinds) == counts["interactions"] == 11
    assert counts["repeated"] == counts["of_unknown_items"] == 1
    assert facts["negatives"] == "shown"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_pages_of_one_id_are_shown_together(tmp_path, form):
    """Also where they stand in a row each, of which a condition leaves some out."""
    log = nested(list).assign(page=["p", "q", "r", "q", "p", "s"], device=list("xyxyxz"))
    options = {"shown_column": "shown", "clicked_column": "clicks", "impression_column": "page"}
    options |= {"where": "device <> 'z'", "split": "date", "valid_from": 2, "test_from": 3}
    log.loc[len(log)] = ["a", 3, ["i7", "i8"], ["i8"], "t", "x"]
    out, facts = imported(tmp_path, log, form=form, context_fields="device", **options)
    train, valid, test = splits_of(out).values()
    assert train["item_id"].tolist() == [2, 3, 2]
    # What q showed on day 4 has the history of day 2 and its split; each item is there once.
    valid = valid.sort_values("item_id")
    assert (valid["item_id"] - 1).tolist() == [1, 2, 3, 4, 5]
    assert valid["label"].tolist() == [0, 0, 1, 1, 1]
    assert {tuple(history - 1) for history in valid["item_seq"]} == {(1,)}
    assert [tuple(history - 1) for history in test["item_seq"]] == [(1, 3)] * 2, "not of day 4"
    assert set(valid["field_device"]) == {"y"}
    ids = [table["impression_id"].unique().tolist() for table in (train, valid, test)]
    assert ids == [[1, 4], [2], [3]], "those of user a come first"
    counts = facts["counts"]
    assert (counts["left_out_by_where"], counts["empty_impressions"]) == (1, 1)


@pytest.mark.parametrize("as_value", [list, str, lambda items: str(items).replace("'", '"')])
def test_ids_with_spaces_stay_whole_in_lists(tmp_path, as_value):
    items = pd.DataFrame({"item_id": ["a b", "it, 2", "i3", "i4"], "title": "", "tags": ""})
    lists = [["a b", "it, 2"], ["i3", "i4"], ["i4", "i3"]]
    log = pd.DataFrame({"user_id": 1, "timestamp": [1, 2, 3]})
    log["shown"] = [as_value(one) for one in lists]
    log["clicks"] = [as_value(one[:1]) for one in lists]
    options = {"shown_column": "shown", "clicked_column": "clicks", "items": items}
    _, facts = imported(tmp_path, log, form="parquet", **options)
    assert (facts["counts"]["clicks"], facts["counts"]["not_clicked"]) == (3, 3)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_where_leaves_rows_out_before_anything_is_asked_of_them(tmp_path, form):
    """A value that no row kept has must not matter."""
    log = frame_of([*LOG, ("a", 9, 1, False, None), ("c", 1, 2, True, None)])
    log["clicked"] = log["clicked"].astype(str)
    log.loc[len(log) - 2 :, "clicked"] = ["n/a", None]
    where = "clicked IN ('0', '1')"
    options = {"label_column": "clicked", "where": where, "form": form}
    _, facts = imported(tmp_path, log, **options)
    counts = facts["counts"]
    assert counts["left_out_by_where"] == 2
    assert (counts["interactions"], counts["clicks"], counts["not_clicked"]) == (9, 5, 2)


def test_where_compares_numbers_as_numbers_where_the_table_has_them(tmp_path):
    log = frame_of(LOG).assign(price=[5.5, 10, 9, 7, 7, 7, 1])
    _, facts = imported(
        tmp_path, log, label_column="clicked", where="price > 5 AND price < 10", form="parquet"
    )
    assert facts["counts"]["left_out_by_where"] == 2


@pytest.mark.parametrize(
    "where",
    ["", "no such", "nobody = 1", "user_id = ", "sum(timestamp) > 1", "user_id::INT > 1", "'x'"],
)
def test_a_condition_that_cannot_be_asked_is_one_sentence(tmp_path, where):
    with pytest.raises(ConfigError, match="which cannot be asked of") as caught:
        imported(tmp_path, frame_of(LOG), label_column="clicked", where=where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["read_csv('{path}')", "read_text('{path}')", "'{path}'"])
def test_a_condition_reads_no_other_file(tmp_path, where):
    secret = tmp_path / "secret.csv"
    secret.write_text("user_id\na\n")
    where = f"EXISTS (FROM {where.format(path=secret)})"
    with pytest.raises(ConfigError, match="which cannot be asked of") as caught:
        imported(tmp_path, frame_of(LOG), label_column="clicked", where=where)
    assert "disabled" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"clicked": "maybe"}, {"label_column": "clicked"}, "'maybe', expected 1 and 0 or yes"),
        ({"clicked": "2"}, {"label_column": "clicked"}, "found '2', expected 1 and 0"),
        (
            {"clicked": "view"},
            {"label_column": "clicked", "click": "buy"},
            "'click' is 'buy', but column clicked of .* has only view: choose",
        ),
        ({"clicked": 0}, {"label_column": "clicked"}, "has no click among its 7 rows"),
        ({"clicked": 1}, {"label_column": "clicked"}, "nothing but clicks among its 7 rows"),
        ({}, {"label_column": "what"}, "has no column what"),
        ({"clicked": "good"}, {"label_column": "clicked", "min_rating": 2}, "expected numbers"),
        ({"page": "i1 i2"}, {"shown_column": "page"}, "found 'i1', expected items that end in"),
        ({}, {"shown_column": "what"}, "has no column what"),
        ({}, {"click": 1}, "'click' means nothing without label_column"),
        ({}, {"clicked_column": "clicked"}, "means nothing without shown_column"),
        ({}, {"impression_column": "page"}, "without label_column or shown_column"),
        ({}, {"shown_column": "page", "label_column": "clicked"}, "exclude each other"),
        ({}, {"shown_column": "page", "order_by": "clicked"}, "exclude each other"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, change, options, message):
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        imported(tmp_path, frame_of(LOG).assign(**change), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_click_of_an_impression_is_no_history_before_it_happened(tmp_path):
    """Sessions overlap: what was clicked late in one must not be known in another before."""
    log = [("a", 0, "A", 1, 0), ("a", 9000, "A", 2, 1), ("a", 5000, "B", 3, 1)]
    log += [("a", 9500, "C", 4, 1), ("a", 8000, "A", 3, 0), ("a", 9001, "A", 1, 1)]
    log += [("b", day, "D", day % 7, day % 2) for day in range(8)]
    frame = pd.DataFrame(log, columns=["user_id", "timestamp", "session", "item_id", "clicked"])
    frame["item_id"] = "i" + frame["item_id"].astype(str)
    options = {"label_column": "clicked", "impression_column": "session", "split": "date"}
    out, facts = imported(tmp_path, frame, **options, valid_from=4000, test_from=9400)
    rows = pd.concat(splits_of(out).values())
    rows = rows[rows["user_id"] == 1]
    found = {
        (row.item_id - 1, row.time // (86_400 * 10**9)): (row.label, [n - 1 for n in row.item_seq])
        for row in rows.itertuples()
    }
    assert found == {
        (1, 9001): (1, []),  # clicked at last, and with the history of its impression's first
        (2, 9000): (1, []),
        (3, 8000): (0, []),
        (3, 5000): (1, []),
        (4, 9500): (1, [3, 2, 1]),
    }
    assert facts["counts"]["train"] == 3 + 7, "an impression is in one split, that of its first"
    assert facts["counts"]["repeated"] == 2


def test_rows_with_lists_are_an_impression_each_at_whatever_time(tmp_path):
    rows = [("a", 1, "i1 i2", "i1"), ("a", 1, "i2 i3", ""), ("a", 2, "i4 i5", "i4")]
    rows += [("a", 3, "i6 i7", "i7"), ("b", 1, "i1 i2", "i2"), ("a", 4, "i1 i2", "i1")]
    log = pd.DataFrame(rows, columns=["user_id", "timestamp", "shown", "clicked"])
    options = {"shown_column": "shown", "clicked_column": "clicked"}
    out, facts = imported(tmp_path, log, **options)
    assert facts["counts"]["impressions"] == 6 and facts["counts"]["repeated"] == 0
    rows = pd.concat(splits_of(out).values())
    shown = rows.groupby("impression_id")["item_id"].agg(lambda items: sorted(items - 1))
    assert sorted(map(tuple, shown)) == [(1, 2), (1, 2), (1, 2), (2, 3), (4, 5), (6, 7)]
