"""Imports never leak, keep what they were given, and refuse what they cannot use."""

import json
import math
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr.content.strategies import available_strategies, item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.data.importing import steps as importer
from mmctr.data.importing.steps import Recipe, import_dataset, popularity_levels
from mmctr.errors import ConfigError, DataError

ITEMS = pd.DataFrame(
    {
        "item_id": [f"i{number}" for number in range(12)],
        "title": [f"Title {number}" for number in range(12)],
        "genres": ["Drama|Comedy", "Drama", "", None, "Sci-Fi, Drama", *["Comedy"] * 7],
    }
)
log_rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 7), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


def imported(folder, log, items=ITEMS, covers=None, features=None, **options):
    """Import a log given as rows (user, item number, time) or as a DataFrame."""
    if not isinstance(log, pd.DataFrame):
        log = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"])
        log["item_id"] = "i" + log["item_id"].astype(str)
    log.to_csv(folder / "log.csv", index=False)
    items.to_parquet(folder / "items.parquet")
    out, table = folder / "out", None
    if features is not None:
        table = folder / "features.parquet"
        pq.write_table(pa.table(features), table)
    recipe = Recipe.of(**options)
    facts = import_dataset(folder / "log.csv", folder / "items.parquet", covers, out, recipe, table)
    return out, facts


def vectors(numbers, width, shift=0.0):
    """A list of numbers for each item number, all different."""
    return [[shift + number + place / 10 for place in range(width)] for number in numbers]


def features_of(numbers, **columns):
    """A features table with rows for these items, a text and an image column and others."""
    names = {"item_id": [f"i{number}" for number in numbers]}
    embeddings = {"txt_emb": vectors(numbers, 5), "img_emb": vectors(numbers, 3, 100)}
    return pd.DataFrame(names | embeddings | columns)


def first_clicks(log):
    """The log as the importer should see it: each user's first click on each item, by time."""
    seen = {}
    for user, item, time in sorted(log, key=lambda row: row[2]):
        seen.setdefault((user, item), time)
    return seen


@settings(max_examples=40)
@given(log_rows, st.sampled_from(["uniform", "popularity"]), st.integers(1, 4))
def test_nothing_leaks(log, sampling, max_history):
    with tempfile.TemporaryDirectory() as name:
        options = {"sampling": sampling, "negatives": 2, "max_history": max_history}
        try:
            out, _ = imported(Path(name), log, **options)
        except ConfigError as error:
            mine = [user for user, _ in first_clicks(log)]
            few = max(map(mine.count, mine)) < 3
            assert ("No user has three" if few else "clicked every item") in str(error)
            return
        frames = {
            split: pd.read_parquet(out / "MicroLens_1M_x1" / f"{split}.parquet")
            for split in ("train", "valid", "test")
        }
        users = pd.read_parquet(out / "user_ids.parquet").set_index("user_id")["original_id"]
        items = pd.read_parquet(out / "item_feature.parquet").set_index("item_id")
    time_of = first_clicks(log)
    rows = pd.concat(frames.values(), ignore_index=True)
    positives = rows[rows["label"] == 1]
    targets = {
        (users[row.user_id], row.item_id - 1): row.item_seq for row in positives.itertuples()
    }
    assert set(targets) == set(time_of), "every first click is a target once"
    assert len(positives) == len(time_of)
    for (user, item), history in targets.items():
        now = time_of[user, item]
        earlier = {i for (u, i), time in time_of.items() if u == user and time < now}
        assert len(history) == min(max_history, len(earlier))
        assert {number - 1 for number in history} <= earlier
        times = [time_of[user, number - 1] for number in history]
        assert times == sorted(times), "oldest first"
        if len(earlier) > max_history:
            left_out = [time_of[user, i] for i in earlier if i + 1 not in history]
            assert max(left_out) <= min(times), "the latest clicks are kept"
    for row in rows[rows["label"] == 0].itertuples():
        assert (users[row.user_id], row.item_id - 1) not in time_of, "a negative was clicked"
    assert (rows.groupby(np.arange(len(rows)) // 3)["label"].sum() == 1).all()
    assert (rows["label"].to_numpy()[::3] == 1).all()
    train = frames["train"]
    counts = train[train["label"] == 1]["item_id"].value_counts().reindex(items.index).fillna(0)
    expected = popularity_levels(counts.to_numpy())
    for name, levels in zip(("likes_level", "views_level"), expected, strict=True):
        assert items[name].tolist() == levels.tolist(), "levels know of train clicks only"
        assert rows[name].tolist() == items[name][rows["item_id"]].tolist()
    for user in set(users[rows["user_id"]]):
        mine = sum(1 for name, _ in time_of if name == user)
        held = [
            (users[frames[split].query("label == 1")["user_id"]] == user).sum()
            for split in ("valid", "test")
        ]
        assert held == ([1, 1] if mine >= 3 else [0, 0])


def test_last_two_are_the_last_two_and_date_splits_by_date(tmp_path):
    log = [("a", number, 10 + number) for number in range(6)]
    out, _ = imported(tmp_path, log)
    valid, test = (
        pd.read_parquet(out / "MicroLens_1M_x1" / f"{name}.parquet") for name in ("valid", "test")
    )
    assert valid["item_id"][0] == 5
    assert test["item_id"][0] == 6
    assert test["item_seq"][0].tolist() == [1, 2, 3, 4, 5]
    (tmp_path / "second").mkdir()
    log += [("b", number, 20 + number) for number in range(6)]
    out, facts = imported(tmp_path / "second", log, split="date", valid_from=15, test_from=22)
    counts = facts["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (5, 3, 4)


def test_the_dataset_loads_with_titles_tags_covers_and_recipe(tmp_path):
    covers = tmp_path / "covers"
    covers.mkdir()
    for name in ("i0.jpg", "i3.PNG", "i5.webp", "nobody.jpg", "i1.txt"):
        (covers / name).write_bytes(name.encode())
    log = [("a", number % 7, number) for number in range(9)] + [("b", 1, 3), ("b", 9, 4)]
    out, facts = imported(tmp_path, log, covers=covers, negatives=1)
    dataset = Dataset.load(out)
    assert dataset.catalog.titles.tolist() == ["", *ITEMS["title"]]
    assert sorted(dataset.catalog.covers) == [1, 4, 6]
    assert dataset.catalog.covers[4].read_bytes() == b"i3.PNG"
    names = pd.read_parquet(out / "tags.parquet").set_index("tag")["name"]
    words = [[names[tag] for tag in row if tag] for row in dataset.catalog.tags[1:6]]
    assert words == [["Drama", "Comedy"], ["Drama"], [], [], ["Sci-Fi", "Drama"]]
    assert names[1] == "Comedy"
    ids = pd.read_parquet(out / "item_ids.parquet")
    assert ids["original_id"].tolist() == ITEMS["item_id"].tolist()
    recipe = json.loads((out / "dataset.json").read_text())
    assert recipe["recipe"]["negatives"] == 1
    assert recipe["counts"] == facts["counts"]
    assert facts["counts"]["repeated"] == 2
    assert dataset.split("test").label is not None


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
    assert not (out / "user_ids.parquet").exists(), "whole numbers stay as they are"


def test_one_seed_gives_one_dataset(tmp_path):
    log = [("abc"[number % 3], number % 8, number) for number in range(30)]
    prints = []
    for seed, name in ((1, "one"), (1, "two"), (2, "three")):
        (tmp_path / name).mkdir()
        out, _ = imported(tmp_path / name, log, seed=seed)
        prints.append(Dataset.load(out).fingerprint)
    assert prints[0] == prints[1] != prints[2]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_levels_cut_the_items_and_the_clicks_into_tenths(clicks):
    likes, views = popularity_levels(np.array(clicks))
    popular = [count for count in clicks if count]
    for item, count in enumerate(clicks):
        if not count:
            assert likes[item] == views[item] == 0
            continue
        upto = [other for other in popular if other <= count]
        assert likes[item] == math.ceil(Fraction(10 * len(upto), len(popular)))
        assert views[item] == math.ceil(Fraction(10 * sum(upto), sum(popular)))


def test_popular_items_are_drawn_more_often(tmp_path):
    log = [(f"u{number}", 1, number) for number in range(200)]
    log += [(f"v{number}", 2, number) for number in range(20)] + [("w", 3, 1)]
    out, _ = imported(tmp_path, log, sampling="popularity", negatives=1, split="date")
    rows = pd.read_parquet(out / "MicroLens_1M_x1" / "train.parquet")
    drawn = rows[rows["label"] == 0]["item_id"].value_counts()
    assert drawn[3] > 8 * drawn.get(4, 0), "item i2 was clicked 20 times as often as i3"
    assert set(drawn.index) <= {2, 3, 4}


def test_who_clicked_everything_gets_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="clicked every item"):
        imported(tmp_path, [("a", number, number) for number in range(12)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log": [("a", 1, 1)], "min_rating": 3}, "has no column rating, which min_rating needs"),
        ({"log": [("a", 99, 1)]}, "has no click on an item of the items table"),
        ({"time_column": "when"}, "has no column when, only user_id, item_id, timestamp"),
        ({"items": pd.concat([ITEMS, ITEMS[:1]])}, "row 12: found i0, expected each item once"),
        ({"covers": Path("nowhere")}, "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        imported(tmp_path, **({"log": [("a", 1, 1), ("a", 2, 2), ("a", 3, 3)]} | change))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*")), "nothing half-written is left"


LOG = [("a", number % 7, number) for number in range(9)] + [("b", 1, 3), ("b", 9, 4)]


def test_ready_made_embeddings_join_by_item_id(tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "EMBEDDING_ROWS", 5)  # 12 items are three parts
    numbers = [11, 3, 99, 0, 7, 5, 4]
    extra = {"graph": vectors(numbers, 4, 200), "note": "no numbers", "year": 1999}
    features = features_of(numbers, **extra)
    out, facts = imported(tmp_path, LOG, features=features)
    catalog = Dataset.load(out).catalog
    by_id = features.set_index("item_id")
    found = {
        "txt_emb": catalog.text_features,
        "img_emb": catalog.image_features,
        "graph": catalog.provided_embedding("graph"),
    }
    for column, values in found.items():
        rows = by_id[column].reindex(ITEMS["item_id"])
        width = len(by_id[column].iloc[0])
        expected = [row if isinstance(row, list) else [0.0] * width for row in rows]
        assert np.array_equal(values[1:], np.array(expected, dtype=np.float32)), column
        assert not values[0].any(), "row 0 is padding"
    assert list(catalog.provided) == ["graph"]
    counts = {name: count for name, count in facts["counts"].items() if "features" in name}
    assert counts == {"features": 6, "without_features": 6, "features_of_unknown_items": 1}
    assert facts["sources"][-1].endswith("features.parquet")


def test_embedding_columns_have_any_name(tmp_path):
    features = features_of(range(12)).rename(columns={"txt_emb": "words", "img_emb": "look"})
    chosen = {"text_embedding_column": "words", "image_embedding_column": "look"}
    (tmp_path / "chosen").mkdir()
    out, _ = imported(tmp_path / "chosen", LOG, features=features, **chosen)
    dataset = Dataset.load(out)
    assert (dataset.catalog.text_features.shape, dataset.catalog.image_features.shape) == (
        (13, 5),
        (13, 3),
    )
    assert {name: facts["model"] for name, facts in dataset.encoders.items()} == {
        "txt_emb_BERT": "features.parquet:words (ready-made)",
        "img_emb_CLIPRN50": "features.parquet:look (ready-made)",
    }
    assert json.loads((out / "dataset.json").read_text())["encoders"] == dataset.encoders
    (tmp_path / "others").mkdir()
    out, _ = imported(tmp_path / "others", LOG, features=features)
    catalog = Dataset.load(out).catalog
    assert (catalog.text_features, catalog.image_features) == (None, None)
    assert available_strategies(catalog) == ["provided:look", "provided:words"]
    assert item_embeddings(catalog, "provided:look").shape == (13, 3)  # a name of another file, too
    (tmp_path / "challenge").mkdir()
    features = features_of(range(12)).rename(columns={"txt_emb": "txt_emb_BERT"})
    out, _ = imported(tmp_path / "challenge", LOG, features=features)
    assert Dataset.load(out).catalog.text_features.shape == (13, 5)


@pytest.mark.parametrize("as_text", ["items", "features"])
def test_ids_of_features_may_have_another_type(tmp_path, as_text):
    log = pd.DataFrame(LOG, columns=["user_id", "item_id", "timestamp"])
    items, features = ITEMS.assign(item_id=range(12)), features_of([4, 2])
    features["item_id"] = [4, 2]
    for name, table in (("items", items), ("features", features)):
        if name == as_text:
            table["item_id"] = table["item_id"].astype(str)
    out, _ = imported(tmp_path, log, items, features=features)
    text = Dataset.load(out).catalog.text_features
    assert np.flatnonzero(text.any(axis=1)).tolist() == [3, 5]
    assert text[5] == pytest.approx([4.0, 4.1, 4.2, 4.3, 4.4])


def test_fixed_size_lists_and_other_number_types_are_embeddings_too(tmp_path):
    numbers = range(12)
    values = np.array(vectors(numbers, 4), dtype=np.float16)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4)
    whole = pa.array([[number, -number] for number in numbers], pa.large_list(pa.int32()))
    names = pa.array([f"i{number}" for number in numbers])
    empty = pa.array([[]] * 12)  # no numbers, no embedding
    columns = {"item_id": names, "txt_emb": fixed, "counts": whole, "empty": empty}
    out, _ = imported(tmp_path, LOG, features=pa.table(columns))
    catalog = Dataset.load(out).catalog
    assert np.array_equal(catalog.text_features[1:], values.astype(np.float32))
    assert list(catalog.provided) == ["counts"]
    assert catalog.provided_embedding("counts")[12].tolist() == [11, -11]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"item_id": ["i0", "i1", "i0"]}, {}, "column item_id, row 2: found i0, expected each"),
        ({"item_id": ["i0", None, "i2"]}, {}, "column item_id, row 1: found None"),
        ({"item_id": ["x", "y", "z"]}, {}, "no row of an item of the items table"),
        ({"txt_emb": [[1.0], [np.nan], [2.0]]}, {}, "column txt_emb, row 1: found a missing"),
        ({"img_emb": [[1.0], [2.0], [np.inf]]}, {}, "column img_emb, row 2: found NaN or inf"),
        ({"graph": [[1.0], [2.0, 3.0], [4.0]]}, {}, "column graph, row 1: found 2 values, exp"),
        ({"graph": [[1.0], None, [4.0]]}, {}, "column graph, row 1: found a missing value"),
        ({"txt_emb": ["[1]", "[2]", "[3]"]}, {}, "column txt_emb: found (large_)?string, expected"),
        ({}, {"text_embedding_column": "words"}, "no column words, only item_id, txt_emb, img_emb"),
        ({}, {"image_embedding_column": "item_id"}, "column item_id: found (large_)?string"),
    ],
)
def test_features_that_cannot_be_used_are_one_sentence(tmp_path, change, options, message):
    features = features_of(range(3)).assign(**change)
    with pytest.raises(DataError, match=rf"features\.parquet.*{message}") as failure:
        imported(tmp_path, LOG, features=features, **options)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (["item_id"], "has no column item_id, only txt_emb, img_emb"),
        (["txt_emb", "img_emb"], "has no column of embeddings, only item_id"),
    ],
)
def test_features_need_ids_and_embeddings(tmp_path, drop, message):
    with pytest.raises(DataError, match=message):
        imported(tmp_path, LOG, features=features_of(range(3)).drop(columns=drop))


@pytest.mark.parametrize("name", ["features.csv", "features.parquet", "nowhere.parquet"])
def test_odd_features_files_are_one_sentence(tmp_path, name):
    imported(tmp_path, LOG)
    if not name.startswith("nowhere"):
        (tmp_path / name).write_text('item_id,txt_emb\ni1,"[1, 2]"\n')
    paths = tmp_path / "log.csv", tmp_path / "items.parquet", None, tmp_path / "second"
    with pytest.raises(DataError, match=rf"{name} is not a"):
        import_dataset(*paths, Recipe.of(), tmp_path / name)


@pytest.mark.parametrize("text", ["", "user_id,item_id,timestamp\na,i1,soon\n", "a\x00b"])
def test_odd_logs_are_one_sentence(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    ITEMS.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"log\.csv"):
        import_dataset(
            tmp_path / "log.csv", tmp_path / "items.parquet", None, tmp_path / "o", Recipe.of()
        )


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


def test_a_log_without_three_clicks_of_anyone_is_refused(tmp_path):
    """It would leave valid and test without rows, and a dataset that cannot be loaded."""
    with pytest.raises(ConfigError, match="No user has three clicks"):
        imported(tmp_path, [("a", 1, 1), ("a", 2, 2), ("b", 3, 3)])
    assert not (tmp_path / "out").exists()


def test_dates_before_1970_keep_their_order(tmp_path):
    times = ["1969-12-31 23:59:58.5", "1969-12-31 23:59:59.5", "1970-01-01 00:00:00.0"]
    log = pd.DataFrame({"user_id": 1, "item_id": ["i1", "i2", "i3"]})
    log["timestamp"] = pd.to_datetime(times)
    out, _ = imported(tmp_path, log, negatives=0)
    test = pd.read_parquet(out / "MicroLens_1M_x1" / "test.parquet")
    assert test["item_seq"][0].tolist() == [2, 3]
    assert test["item_id"][0] == 4


def test_a_border_of_zero_is_a_time(tmp_path):
    log = [("a", number, number - 5) for number in range(10)]
    _, facts = imported(tmp_path, log, split="date", valid_from=0, test_from=2, negatives=1)
    counts = facts["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (5, 2, 3)
