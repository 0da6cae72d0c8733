"""Planted problems are found, and nothing else is."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mmctr.data.audit import describe, leaks, problems, single_feature_auc
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.fields import Field
from mmctr.data.impressions import Impressions, target_in_history


@pytest.fixture
def clean(tmp_path):
    """A dataset of four items without any problem."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 3)).astype(np.float32)
    features[0] = 0
    covers = {}
    for item in range(1, 5):
        covers[item] = tmp_path / f"{item}.jpg"
        covers[item].write_bytes(bytes([item]))
    level = np.array([0, 1, 2, 3, 4], dtype=np.int8)
    tags = np.array([[0], [1], [1], [2], [2]], dtype=np.int32)
    titles = np.array(["", "one", "two", "three", "four"], dtype=object)
    catalog = Catalog(tags, level, level, titles, covers, features, features.copy())
    one = np.array([1])
    clicks = np.array([1], dtype=np.int32)
    splits = {
        name: Impressions(one, target.astype(np.int32), np.ones(1), one - 1, one, clicks)
        for name, target in (("train", one + 1), ("valid", one + 2))
    }
    return Dataset(tmp_path, catalog, splits)


def with_catalog(dataset, **changes):
    """The dataset with some arrays of its catalog replaced."""
    return replace(dataset, catalog=replace(dataset.catalog, **changes))


def changed(array, item, value):
    """A copy of an array with one row replaced."""
    copy = array.copy()
    copy[item] = value
    return copy


def test_examples_are_the_users_own_ids(clean):
    ids = np.array(["", "0007", "x\n", "<b>", "9"], dtype=object)
    dirty = with_catalog(clean, own_ids=ids, tags=np.zeros((5, 1), dtype=np.int32))
    assert problems(dirty)["examples"].tolist() == [r"0007, 'x\n', <b>, ..."]


def test_clean_data_have_no_problems(clean):
    assert problems(clean).empty
    assert "No problems found." in describe(clean)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("titles", "  ", "items with a blank title"),
        ("tags", 0, "items without tags"),
        ("titles", "", "items with a blank title"),
        ("likes_level", 0, "items of unknown popularity"),
        ("views_level", 0, "items of unknown popularity"),
        ("text_features", 0, "items with zero text features"),
        ("image_features", 0.7, "items with constant image features"),
    ],
)
def test_a_planted_problem_is_found(clean, field, value, problem):
    dirty = with_catalog(clean, **{field: changed(getattr(clean.catalog, field), 2, value)})
    found = problems(dirty)
    assert found[["problem", "number", "examples"]].to_numpy().tolist() == [[problem, 1, "2"]]
    assert problem in describe(dirty)


@pytest.mark.parametrize("name", ["text", "image"])
def test_features_are_zero_constant_or_neither(clean, name):
    rng = np.random.default_rng(1)
    features = np.array(
        [np.zeros(50), rng.normal(size=50), np.zeros(50), np.full(50, 1e-6), np.full(50, -3.0)]
    )
    features[4] += rng.normal(0, 1e-5, 50)
    dirty = with_catalog(clean, **{f"{name}_features": features.astype(np.float32)})
    found = problems(dirty)[["problem", "number", "examples"]].to_numpy().tolist()
    assert found == [
        [f"items with zero {name} features", 1, "2"],
        [f"items with constant {name} features", 2, "3, 4"],
    ]


def test_absent_features_are_no_problem(clean):
    without = with_catalog(clean, text_features=None, image_features=None)
    assert problems(without).empty
    assert "text features    none" in describe(without)


def test_the_first_three_examples_are_named(clean):
    found = problems(with_catalog(clean, tags=np.zeros((5, 1), dtype=np.int32)))
    assert found["examples"].tolist() == ["1, 2, 3, ..."]
    assert found["number"].tolist() == [4]
    assert "4 items without tags (the tags field is zero)" in describe(
        with_catalog(clean, tags=np.zeros((5, 1), dtype=np.int32))
    )


def test_a_blank_title_does_not_count_as_a_title(clean):
    titles = changed(clean.catalog.titles, 2, "  ")
    assert "titles           3" in describe(with_catalog(clean, titles=titles))


def test_missing_and_repeated_covers_are_found(clean):
    covers = dict(clean.catalog.covers)
    del covers[1]
    shutil.copy(covers[3], covers[4])
    found = problems(with_catalog(clean, covers=covers)).set_index("problem")
    assert found.loc["items without a cover", "examples"] == "1"
    assert found.loc["items with another item's cover", "examples"] == "3, 4"


def test_data_without_covers_are_not_blamed(clean):
    assert problems(with_catalog(clean, covers={})).empty


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, 1),
        ({"user": np.array([8])}, 0),
        ({"target": np.array([4])}, 0),
        ({"history_end": np.array([0])}, 0),
        ({"label": np.zeros(1)}, 1),
    ],
)
def test_leaked_rows_have_user_target_and_history_of_a_train_row(clean, changes, number):
    rows = replace(clean.train, **changes)
    leaked = replace(clean, splits=clean.splits | {"valid": rows})
    found = leaks(leaked).set_index("sign")["number"]
    assert found.get("valid rows that also stand in train", 0) == number


def test_unusable_media_are_listed_by_reason(clean):
    errors = {"item": [3, 4, 2], "medium": ["cover", "cover", "title"]}
    table = pd.DataFrame(errors | {"reason": ["truncated", "truncated", "empty"]})
    table.to_parquet(clean.folder / "extraction_errors.parquet")
    found = problems(clean).set_index("problem")
    assert found.loc["items with unusable cover", ["number", "examples"]].tolist() == [2, "3, 4"]
    assert "truncated" in found.loc["items with unusable cover", "meaning"]
    assert found.loc["items with unusable title", "number"] == 1


def test_describe_names_sizes(tiny):
    text = describe(tiny)
    lines = dict(line.rsplit(maxsplit=1) for line in text.splitlines() if "  " in line.strip())
    titled = np.array([bool(title) for title in tiny.catalog.titles])
    assert lines["items"] == "300"
    assert lines["titles"] == str(titled.sum())
    assert lines["covers"] == "300"
    assert lines["largest tag"] == str(tiny.catalog.tags.max())
    assert "ready embeddings item_emb_d128" in text
    assert str(tiny.folder) == text.splitlines()[0]
    assert tiny.fingerprint in text
    assert "144 numbers an item" in text
    assert "160 numbers an item" in text
    assert "simulated" in text


def impressions(rows):
    """Rows of (user, target, history, label)."""
    user, target, histories, label = zip(*rows, strict=True)
    lengths = np.array([len(history) for history in histories])
    end = np.cumsum(lengths)
    clicks = np.array([click for history in histories for click in history], dtype=np.int32)
    target, label = np.array(target, dtype=np.int32), np.array(label, dtype=np.float32)
    return Impressions(np.array(user), target, label, end - lengths, end, clicks)


ROWS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(1, 4),
        st.lists(st.integers(1, 4), max_size=2).map(tuple),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=12,
)


@given(train=ROWS, valid=ROWS, test=ROWS)
def test_signs_of_leaks_are_those_that_loops_find(train, valid, test):
    rows = {"train": train, "valid": valid, "test": test}
    ones = np.ones(5, dtype=np.int8)
    tags, titles = ones[:, None].astype(np.int32), np.full(5, "", dtype=object)
    catalog = Catalog(tags, ones, ones, titles, {})
    data = Dataset("here", catalog, {name: impressions(part) for name, part in rows.items()})
    found = leaks(data).set_index("sign")["number"].to_dict()
    expected = {}
    for earlier, later in (("train", "valid"), ("train", "test"), ("valid", "test")):
        known = {row[:3] for row in rows[earlier]}
        count = sum(row[:3] in known for row in rows[later])
        expected[f"{later} rows that also stand in {earlier}"] = count
    for name, part in rows.items():
        inside = [target in history for _, target, history, _ in part]
        assert target_in_history(data.split(name)).tolist() == inside
        expected[f"{name} rows with the target in their history"] = sum(inside)
    users = [user for user, *_ in train]
    expected["users with a single train row"] = sum(users.count(user) == 1 for user in set(users))
    for sign, number in expected.items():
        assert found.get(sign, 0) == number


def test_each_feature_alone_is_measured_as_scikit_learn_does(tiny):
    table = single_feature_auc(tiny).set_index("feature")
    valid, train, catalog = tiny.valid, tiny.train, tiny.catalog
    clicked = train.label == 1

    def known(rows):
        """Train clicks of each row's target before its time."""
        before = train.time[clicked] < rows.time[:, None]
        return (before & (train.target[clicked] == rows.target[:, None])).sum(axis=1)

    expected = {
        "likes_level": (catalog.likes_level[train.target], catalog.likes_level[valid.target]),
        "train clicks of the target": (known(train), known(valid)),
        "item id": (train.target, valid.target),
    }
    for name, (in_train, in_valid) in expected.items():
        assert table.loc[name, "train AUC"] == pytest.approx(roc_auc_score(train.label, in_train))
        assert table.loc[name, "valid AUC"] == pytest.approx(roc_auc_score(valid.label, in_valid))
    distance = (table["valid AUC"] - 0.5).abs().to_numpy()
    assert (np.diff(distance) <= 0).all()
    assert [name.split(",")[0] for name in table.index if "column" in name] != []


def test_an_embedding_made_from_labels_is_told(tiny):
    assert not any("told by" in sign for sign in leaks(tiny)["sign"])
    catalog, rng = tiny.catalog, np.random.default_rng(0)
    told = rng.normal(size=catalog.n_items + 1)
    rows = {
        name: replace(part, label=(told[part.target] > 0.5).astype(np.float32))
        for name, part in tiny.splits.items()
    }
    features = rng.normal(size=(catalog.n_items + 1, 4)).astype(np.float32)
    features[:, 2] = -told
    leaked = replace(tiny, splits=rows, catalog=replace(catalog, image_features=features))
    found = leaks(leaked)
    assert "valid rows told by image features, column 2 (AUC 0.00)" in found["sign"].tolist()
    assert "image features, column 2" in describe(leaked)


@pytest.mark.parametrize("counted", ["train", "all splits"])
def test_levels_counted_over_all_splits_are_told(tiny, counted):
    rng = np.random.default_rng(1)
    likes = rng.random(4001)
    parts = {}
    for name in ("train", "valid"):
        target = rng.integers(1, 4001, 6000).astype(np.int32)
        nothing = np.zeros(6000, dtype=np.int64)
        label = (rng.random(6000) < likes[target] / 2).astype(np.float32)
        clicks = np.zeros(0, dtype=np.int32)
        parts[name] = Impressions(nothing, target, label, nothing, nothing, clicks)
    of = parts if counted == "all splits" else {"train": parts["train"]}
    clicks = sum(np.bincount(part.target[part.label == 1], minlength=4001) for part in of.values())
    level = np.minimum(clicks, 10).astype(np.int8)
    tags, titles = np.ones((4001, 1), dtype=np.int32), np.full(4001, "x", dtype=object)
    data = Dataset(tiny.folder, Catalog(tags, level, level, titles, {}), parts)
    told = [sign for sign in leaks(data)["sign"] if "without train clicks, told by" in sign]
    assert len(told) == (2 if counted == "all splits" else 0)


@pytest.fixture
def with_field(tiny):
    """The tiny data with a context field of the given codes, by split."""

    def make(size, codes):
        field = Field("device", "context", values=tuple(f"d{n}" for n in range(size - 1)))
        rows = {
            name: replace(part, fields=codes(part).astype(np.int32)[:, None])
            for name, part in tiny.splits.items()
        }
        return replace(tiny, splits=rows, row_fields=(field,))

    return make


@pytest.mark.parametrize("size", [2, 5, 400])
def test_a_field_that_says_nothing_is_near_chance(with_field, size):
    rng = np.random.default_rng(0)
    data = with_field(size, lambda part: rng.integers(1, size, len(part)))
    line = single_feature_auc(data).set_index("feature").loc["device (context)"]
    assert line[["train AUC", "valid AUC"]].tolist() == pytest.approx([0.5, 0.5], abs=0.09)
    assert not any("device" in sign for sign in leaks(data)["sign"])


def test_a_field_that_tells_the_label_is_named(with_field):
    """Neither in the order of its codes nor for all rows: 5% were written at random."""
    rng = np.random.default_rng(1)
    tells = rng.random(31) < 0.4

    def codes(part):
        own = np.where(
            part.label == 1,
            *(rng.choice(np.flatnonzero(tells == t), len(part)) for t in (True, False)),
        )
        return np.where(rng.random(len(part)) < 0.05, rng.integers(0, 31, len(part)), own)

    data = with_field(31, codes)
    (sign,) = (sign for sign in leaks(data)["sign"] if "device" in sign)
    assert sign.startswith("valid rows told by device (context) (AUC 0.9")
    line = single_feature_auc(data).iloc[0]
    assert line["feature"] == "device (context)"
    assert "fields           device (context)" in describe(data)


def test_what_a_value_tells_is_learned_on_other_rows(with_field):
    """Every train row has a value of its own: nothing is known of any but the mean."""
    data = with_field(3000, lambda part: np.arange(len(part)) % 2999 + 1)
    line = single_feature_auc(data).set_index("feature").loc["device (context)"]
    assert line["train AUC"] == 0.5


def test_a_level_is_that_of_its_time(tiny):
    levels = np.zeros((len(tiny.valid), 2), dtype=np.int8)
    levels[:, 1] = tiny.valid.label
    valid = replace(tiny.valid, levels=levels)
    table = single_feature_auc(replace(tiny, splits=tiny.splits | {"valid": valid}))
    found = table.set_index("feature")["valid AUC"]
    assert (found["likes_level"], found["views_level"]) == (0.5, 1)


@pytest.mark.parametrize("said", ["shown", "outcome", "sampled", "unknown"])
def test_describe_says_where_negatives_come_from(clean, said):
    (clean.folder / "dataset.json").write_text(f'{{"negatives": "{said}"}}')
    assert clean.wording.negatives in describe(clean).splitlines()
