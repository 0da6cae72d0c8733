"""What is planted in the demo is there, is known, and is judged as a count by hand would."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmctr.content.errors import KINDS
from mmctr.data import demo_errors
from mmctr.data.demo import write_demo
from mmctr.data.demo_errors import judged, planted


@pytest.fixture(scope="module")
def truth(tiny_folder):
    return planted(tiny_folder)


def of(truth, kind):
    """Row numbers of a kind."""
    return truth.loc[truth["kind"] == kind, "id"].astype(int).to_numpy()


def test_every_kind_is_planted(truth):
    assert set(truth["kind"]) == {kind.name for kind in KINDS}
    items = truth[~truth["kind"].isin(["twice"]) & (truth["what"] != "user")]
    assert items["id"].is_unique, "an item has one error"
    assert len(items) <= 0.12 * 300


def test_planted_titles_are_in_the_files(tiny, truth):
    titles = tiny.catalog.titles
    assert (titles[of(truth, "untitled")] == "").all()
    assert all(title.startswith("New video ") for title in titles[of(truth, "boilerplate")])
    assert set(titles[of(truth, "language")]) <= set(demo_errors.FOREIGN)
    sound = np.setdiff1d(np.arange(1, 301), truth.loc[truth["what"] != "user", "id"].astype(int))
    assert len(set(titles[sound])) == len(sound)
    assert np.isin(titles[of(truth, "repeated")], titles[sound]).all()


def test_planted_covers_are_in_the_files(tiny, truth):
    def pixels(item):
        with Image.open(tiny.catalog.covers[item]) as cover:
            return np.asarray(cover.convert("RGB"), float)

    assert all(pixels(item).mean() < 30 for item in of(truth, "dark"))
    assert all(pixels(item).std(axis=(0, 1)).max() < 3 for item in of(truth, "flat"))
    one, *others = map(pixels, of(truth, "placeholder"))
    assert all(np.array_equal(one, other) for other in others)
    for item in of(truth, "unreadable"):
        with pytest.raises(OSError):
            pixels(item)
    for item in of(truth, "shape"):
        height, width, _ = pixels(item).shape
        assert width > 3 * height


def test_planted_users_click_in_train_alone(tiny, truth):
    users = truth.loc[truth["what"] == "user", "id"].astype(int)
    assert np.isin(users, tiny.train.user).all()
    assert not np.isin(users, tiny.valid.user).any()
    for user in [*of(truth, "labels"), *of(truth, "burst"), *of(truth, "rate")]:
        assert tiny.train.label[tiny.train.user == user].all()
    for user in of(truth, "sweep"):
        row = np.flatnonzero(tiny.train.user == user)[-1]
        assert (np.diff(tiny.train.history(row)) == 1).all()
    seconds = tiny.train.time // 1_000_000_000
    for user in of(truth, "burst"):
        assert len(set(seconds[tiny.train.user == user])) == 1
    for user in of(truth, "rate"):
        mine = seconds[tiny.train.user == user]
        assert len(mine) >= 60
        assert np.ptp(mine) < 60
    for user in of(truth, "too-early"):
        assert seconds[tiny.train.user == user].max() < seconds.max() - 365 * 24 * 3600


def test_other_data_have_no_truth(tmp_path):
    assert planted(tmp_path) is None


def test_the_demo_is_the_same_but_for_its_errors(tmp_path, tiny, truth):
    """Errors take nothing from the draws of what they spoil: clicks of sound users are the same."""
    again = write_demo(tmp_path / "again", seed=1, items=300, users=240)
    assert planted(again).equals(truth)


def test_precision_and_recall_by_hand():
    truth = pd.DataFrame(
        [
            ("cover", "1", "dark"),
            ("cover", "2", "dark"),
            ("item", "3", "mismatch"),
            ("user", "1", "copy"),
        ],
        columns=["what", "id", "kind"],
    )
    found = pd.DataFrame(
        [
            ("cover", "1", "dark"),
            ("cover", "9", "dark"),
            ("item", "2", "mismatch"),
            ("item", "8", "mismatch"),
        ],
        columns=["what", "id", "kind"],
    )
    table = judged(found, truth).set_index("kind")
    assert table.loc["dark"].tolist() == [2, 2, 0.5, 0.5]
    # Item 2 is dark, which its text cannot foretell: no false alarm.
    assert table.loc["mismatch"].tolist() == [1, 2, 0.5, 0.0]
    assert table.loc["copy", ["planted", "found", "recall"]].tolist() == [1, 0, 0.0]
