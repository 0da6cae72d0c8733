"""What items are judged by, against loops over them."""

import numpy as np
import pytest

from mmctr.content import evidence
from mmctr.content.evidence import Evidence, constant, shared
from mmctr.content.titles import plain
from mmctr.data.demo_errors import planted


def test_items_that_share_a_number_are_those_of_a_loop():
    numbers = np.random.default_rng(0).integers(0, 8, 20)
    expected = [
        [item for item in range(1, 20) if numbers[item] == number]
        for number in sorted(set(numbers))
    ]
    found = sorted(items.tolist() for items in shared(numbers))
    assert found == sorted(items for items in expected if len(items) > 1)
    assert shared(np.arange(5)) == []


def test_constant_features():
    rows = np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    rows[1], rows[2], rows[3] = 0, 7, 7 + 1e-4 * rows[3]
    assert constant(rows).tolist() == [False, True, True, True, False, False]


@pytest.fixture(scope="module")
def judged(tiny):
    return Evidence(tiny)


def test_of_two_that_are_the_same_item_the_later_is_told(judged, tiny, tiny_folder):
    truth = planted(tiny_folder)
    (later,) = truth.loc[truth["kind"] == "twice", "id"].astype(int)
    titles = [plain(title) for title in tiny.catalog.titles]
    (earlier,) = (item for item in range(1, later) if titles[item] == titles[later])
    assert judged.twice[later] == 1
    assert np.isnan(judged.twice[earlier])
    assert judged.picture[later] == judged.picture[earlier]
    # A wrong cover is another item's, whose title is not alike.
    wrong = truth.loc[truth["kind"] == "mismatch", "id"].astype(int)
    assert not (judged.twice[wrong] >= 0.95).any()


def test_many_items_with_one_picture_are_compared_by_their_words_alone(judged, tiny, monkeypatch):
    monkeypatch.setattr(evidence, "BLOCK", 1)
    words_alone = Evidence(tiny).twice
    assert np.isnan(words_alone).tolist() == np.isnan(judged.twice).tolist()
    assert ((words_alone == 1) <= (judged.twice >= 0.95)).all()


def test_items_without_title_or_cover_are_at_odds_with_nothing(judged, tiny_folder):
    truth = planted(tiny_folder)
    kinds = ["untitled", "unreadable", "constant-text", "constant-image"]
    silent = truth.loc[truth["kind"].isin(kinds), "id"].astype(int)
    assert np.isnan(judged.odds[silent]).all()
    assert np.isfinite(judged.odds).sum() > 250
