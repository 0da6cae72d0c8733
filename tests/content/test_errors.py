"""What is found in data whose errors are known, and what is said of it."""

import shutil

import numpy as np
import pandas as pd
import pytest

from mmctr.content.errors import KINDS, clean, errors_of, find_errors, in_words
from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.data.demo_errors import judged, planted
from mmctr.data.erroneous import WHAT, read_errors, save_errors
from tests.data.folders import load_changed

# Kinds that a person can tell by looking at the item, or at the user's clicks.
BY_LOOKING = ["unreadable", "placeholder", "flat", "dark", "blurred", "shape", "untitled"]
BY_LOOKING += ["boilerplate", "language", "repeated", "twice", "mismatch"]
BY_LOOKING += ["constant-text", "constant-image", "sweep", "copy", "rate", "burst", "too-early"]


# Seeds that nothing was chosen by; of many users there are several scripts of each kind.
@pytest.fixture(scope="module", params=[(201, 400), (202, 2400)])
def demo(request, tmp_path_factory):
    """A demo of 1,000 items, what was found in it, and the table of kinds."""
    (seed, users), place = request.param, tmp_path_factory.mktemp("demo") / "demo"
    dataset = Dataset.load(write_demo(place, seed=seed, items=1000, users=users))
    return dataset, *find_errors(dataset)


@pytest.mark.parametrize("kind", BY_LOOKING)
def test_planted_errors_are_found_and_little_else(demo, kind):
    dataset, found, _ = demo
    table = judged(found, planted(dataset.folder)).set_index("kind")
    assert table.loc[kind, "precision"] >= 0.9
    assert table.loc[kind, "recall"] >= 0.8


def test_sound_items_are_hardly_ever_found(demo):
    dataset, found, _ = demo
    truth, items = planted(dataset.folder), found[found["what"] != "user"]
    there = set(truth.loc[truth["what"] != "user", "id"])
    assert (~items["id"].isin(there)).sum() <= 0.005 * dataset.catalog.n_items


def test_the_table_counts_what_was_found(demo):
    _, found, table = demo
    counts = found["kind"].value_counts()
    assert {line.kind: line.count for line in table.itertuples()} == {
        kind.name: counts.get(kind.name, 0) for kind in KINDS
    }
    assert list(table["kind"]) == [kind.name for kind in KINDS]
    thresholds = found["kind"].map({kind.name: kind.threshold for kind in KINDS})
    assert (found["score"] >= thresholds).all()


def test_what_a_log_without_times_cannot_tell_is_said(tmp_path):
    _, table = find_errors(load_changed(tmp_path, {}))
    reason = table[table["count"].isna()].set_index("kind")["reason"]
    assert reason[["rate", "burst"]].tolist() == ["not told: the rows have no times"] * 2
    assert reason["too-early"].startswith("not told: the catalog does not say when items came")


def test_each_kind_has_its_own_name_and_says_what_to_expect():
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert kind.what in WHAT
        assert kind.reason
        assert kind.false_alarms
        assert not set(kind.name) & set(", "), "names are given by comma"


@pytest.fixture
def folder(tmp_path, tiny_folder):
    return shutil.copytree(tiny_folder, tmp_path / "tiny")


def test_cleaning_again_keeps_decisions(folder):
    first, table = clean(folder)
    assert first["excluded"].all()
    mine = read_errors(folder)
    mine["excluded"] = mine["kind"] != "untitled"
    save_errors(folder, mine)
    again, _ = clean(folder)
    pd.testing.assert_frame_equal(again, mine)
    known, counted = errors_of(Dataset.load(folder))
    pd.testing.assert_frame_equal(known, mine)
    told = table[table["count"].notna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(counted, told, check_dtype=False)


def test_what_was_said_of_labels_is_kept_beside_the_findings(folder):
    _, table = clean(folder)
    said = table.set_index("kind").loc["labels", "reason"]
    assert "confident learning counts" in said
    errors = read_errors(folder)
    save_errors(folder, errors)  # as a tick does
    _, again = errors_of(Dataset.load(folder))
    assert again.set_index("kind").loc["labels", "reason"] == said


def test_without_a_file_errors_are_found_and_not_kept(folder):
    found, _ = errors_of(Dataset.load(folder))
    assert not (folder / "errors.parquet").exists()
    written, _ = clean(folder)
    pd.testing.assert_frame_equal(found, written)


def test_kinds_of_a_person_are_in_the_table(folder):
    clean(folder)
    hers = pd.DataFrame([("item", "5", "ugly", np.nan, True)], columns=read_errors(folder).columns)
    save_errors(folder, pd.concat([read_errors(folder), hers]))
    _, table = errors_of(Dataset.load(folder))
    line = table.set_index("kind").loc["ugly"]
    assert (line["count"], line["what"], line["reason"]) == (1, "item", "found by a person")


def test_data_without_covers_and_few_items(tmp_path):
    """What cannot be told is said so, and nothing fails."""
    data = load_changed(tmp_path, {})
    found, table = find_errors(data)
    reasons = table.set_index("kind")["reason"]
    assert reasons["dark"] == "not told: there are no covers"
    assert "fewer than 200 items" in reasons["mismatch"]
    assert found.loc[found["what"] != "user", ["id", "kind"]].to_numpy().tolist() == [
        ["2", "untitled"]
    ]
    assert "not told: there are no covers" in in_words(table)


def test_where_another_kind_says_what_is_wrong_there_is_no_mismatch(demo):
    """It leaves out both, title and cover, of which the other may be sound."""
    _, found, _ = demo
    single = found[found["what"].isin(["title", "cover"])]
    assert not set(found.loc[found["kind"] == "mismatch", "id"]) & set(single["id"])
