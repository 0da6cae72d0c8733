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
    splits = {
        name: Impressions(one, target.astype(np.int32), np.ones(1), one - 1, one, one)
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
        ("likes_level", 0, "items of unknown popularity"),
        ("text_features", 0, "items with zero text features"),
        ("image_features", 0.7, "items with constant image features"),
    ],
)
def test_a_planted_problem_is_found(clean, field, value, problem):
    dirty = with_catalog(clean, **{field: changed(getattr(clean.catalog, field), 2, value)})
    found = problems(dirty)
    assert found[["problem", "number", "examples"]].to_numpy().tolist() == [[problem, 1, "2"]]
    assert problem in describe(dirty)


def test_missing_and_repeated_covers_are_found(clean):
    covers = dict(clean.catalog.covers)
    del covers[1]
    shutil.copy(covers[3], covers[4])
    found = problems(with_catalog(clean, covers=covers)).set_index("problem")
    assert found.loc["items without a cover", "examples"] == "1"
    assert found.loc["items with another item's cover", "examples"] == "3, 4"


def test_data_without_covers_are_not_blamed(clean):
    assert problems(with_catalog(clean, covers={})).empty


def test_leaked_rows_are_counted(clean):
    leaked = replace(clean, splits=clean.splits | {"valid": clean.splits["train"]})
    found = problems(leaked).set_index("problem")
    assert found.loc["valid rows that also stand in train", "number"] == 1


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
    assert tiny.fingerprint in text
    assert "768 numbers an item" in text
    assert "1,024 numbers an item" in text
    assert "simulated" in text
