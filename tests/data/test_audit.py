"""Planted problems are found, and nothing else is."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mmctr.data.audit import describe, problems
from mmctr.data.dataset import Catalog, Dataset, Impressions


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


def test_clean_data_have_no_problems(clean):
    assert problems(clean).empty
    assert describe(clean).endswith("No problems found.")


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
    found = problems(leaked)
    assert found["number"].sum() == number
    assert set(found["problem"]) <= {"valid rows that also stand in train"}


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
    assert "768 numbers an item" in text
    assert "1,024 numbers an item" in text
    assert "simulated" in text
