"""Neighbours and co-clicks."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.manifold import TSNE
from sklearn.metrics.pairwise import cosine_similarity

from mmctr.data.impressions import Impressions
from mmctr.evaluation import similarity
from tests.evaluation.test_explain import shortened


def test_cosine_and_nearest_agree_with_scikit_learn():
    embedding = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    embedding[0] = 0
    expected = cosine_similarity(embedding)
    left, right = np.divmod(np.arange(900), 30)
    np.testing.assert_allclose(
        similarity.cosine(embedding, left, right), expected.ravel(), atol=1e-6
    )
    order = np.argsort(-expected[7, 1:]) + 1
    assert similarity.nearest(embedding, 7, 4).tolist() == order[order != 7][:4].tolist()
    zero = similarity.cosine(embedding, np.array([0, 0]), np.array([0, 5]))
    assert zero.tolist() == [0, 0]


@pytest.mark.parametrize("count", [4, 5, 100])
def test_neither_padding_nor_the_item_is_its_own_neighbour(count):
    embedding = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [-1, 0], [-1, -1]], dtype=np.float32)
    assert similarity.nearest(embedding, 1, count).tolist() == [2, 3, 5, 4]


def test_co_click_pairs_are_neighbours_in_train_histories(tiny):
    item, together, apart, history = similarity.co_click_pairs(tiny, count=200)
    seen, of = set(), {}
    for row in range(len(tiny.train)):
        items = tiny.train.history(row).tolist()
        seen |= set(pairwise(items))
        for pair in pairwise(items):
            of.setdefault(pair, set()).add(tuple(items))
    assert set(zip(item.tolist(), together.tolist(), strict=True)) <= seen
    for one in set(history.tolist()):
        pairs = zip(item[history == one].tolist(), together[history == one].tolist(), strict=True)
        assert set.intersection(*(of[pair] for pair in pairs)), "one history has them all"
    assert sorted(apart) == sorted(together)


def test_co_clicks_are_drawn_once_by_seed_and_may_be_absent(tiny):
    pairs = similarity.co_click_pairs(tiny, count=50)
    assert [len(part) for part in pairs] == [50] * 4
    for found, again in zip(pairs, similarity.co_click_pairs(tiny, count=50), strict=True):
        np.testing.assert_array_equal(found, again)
    other = similarity.co_click_pairs(tiny, count=50, seed=1)
    assert not np.array_equal(pairs[0], other[0])
    lonely = replace(tiny, splits=tiny.splits | {"train": shortened(tiny.train, 1)})
    none = similarity.co_click_pairs(lonely)
    assert [len(part) for part in none] == [0] * 4
    table, lead = similarity.co_clicks({"v1": tiny.catalog.text_features}, none)
    assert table["mean"].isna().all()
    assert np.isnan(lead["mean"])


@given(st.lists(st.lists(st.integers(1, 50), max_size=6), min_size=1, max_size=6))
def test_all_co_clicks_are_found_where_there_are_few(histories):
    flat = np.array([item for history in histories for item in history], dtype=np.int32)
    end = np.cumsum([len(history) for history in histories])
    start = end - [len(history) for history in histories]
    number = np.arange(len(histories))
    train = Impressions(number, number, None, start, end, flat)
    item, together, apart, _ = similarity.co_click_pairs(SimpleNamespace(train=train))
    expected = sorted(pair for history in histories for pair in pairwise(history))
    assert sorted(zip(item.tolist(), together.tolist(), strict=True)) == expected
    assert sorted(apart) == sorted(together)


def test_co_clicks_find_what_was_planted(tiny):
    pairs = similarity.co_click_pairs(tiny)
    random = np.random.default_rng(0).normal(size=(tiny.catalog.n_items + 1, 8))
    table, _ = similarity.co_clicks({"random": random}, pairs)
    assert table["mean"][0] == pytest.approx(0.5, abs=0.05)
    # Pairs of three histories: the first embedding is right of all, the second of the first alone.
    planted = np.array([1, 1, 1]), np.array([2, 2, 2]), np.array([3, 3, 3]), np.arange(3)
    right = np.array([[0, 0], [1, 0], [1, 0.1], [0, 1]])
    tied = np.array([[0, 0], [1, 0], [1, 1], [1, 1]])
    table, lead = similarity.co_clicks({"tied": tied, "right": right}, planted)
    assert table.set_index("strategy")["mean"].to_dict() == {"tied": 0.5, "right": 1}
    assert lead == {"first": "right", "second": "tied", "mean": 0.5, "low": 0.5, "high": 0.5}


def test_tags_of_near_items_by_hand():
    # Two pairs, and an item without a tag that is drawn, far away.
    places = np.array([[0, 0], [0, 1], [9, 0], [9, 1], [50, 50]])
    tags = ["a", "a", "b", "b", None]
    assert similarity.same_tag_share(places, tags, count=1) == (1, 0.25)
    # Of the three nearest of each, one has its tag.
    assert similarity.same_tag_share(places, tags, count=3) == pytest.approx((1 / 3, 0.25))
    assert np.isnan(similarity.same_tag_share(places, [None] * 5)).all()


@pytest.mark.parametrize(
    ("n_items", "width"), [(1, 5), (2, 2), (3, 3), (4, 4), (12, 1), (12, 5), (40, 128)]
)
def test_a_map_is_drawn_of_however_few_items_and_columns(n_items, width):
    embedding = np.random.default_rng(0).normal(size=(n_items, width)).astype(np.float32)
    for values in (embedding, np.zeros_like(embedding)):
        found = similarity.item_map(values)
        assert found.shape == (n_items, 2)
        assert np.isfinite(found).all()


def test_a_map_of_many_items_is_that_of_scikit_learn():
    embedding = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    expected = TSNE(perplexity=10, max_iter=500, random_state=0).fit_transform(embedding)
    np.testing.assert_array_equal(similarity.item_map(embedding), expected)


def test_a_hit_is_among_the_nearest_of_all_that_could_be_clicked(tiny):
    """Against scikit-learn, item by item."""
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(tiny.catalog.n_items + 1, 5)).astype(np.float32)
    embedding[0] = 0
    table = similarity.next_click_hits(tiny, {"mine": embedding, "again": embedding})
    clicks = tiny.train_clicks()
    hits = {"new": [], "cold": [], "warm": []}
    unit = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-9)
    for row in np.flatnonzero((tiny.valid.label == 1) & (tiny.valid.history_length > 0)):
        history, target = tiny.valid.history(row), tiny.valid.target[row]
        query = unit[history[-5:]].mean(axis=0, keepdims=True)
        likeness = cosine_similarity(query, embedding)[0]
        rivals = np.setdiff1d(np.arange(1, len(embedding)), np.append(history, target))
        seen = clicks[target]
        group = "new" if seen == 0 else "cold" if seen < 5 else "warm"
        hits[group].append((likeness[rivals] > likeness[target]).sum() < 20)
    for line in table.itertuples():
        assert line.clicks == len(hits[line.group])
        assert line.hits == pytest.approx(np.mean(hits[line.group]), nan_ok=True)


def test_ids_are_counted_and_errors_measured_down_to_each_level():
    ids = np.array([[0, 0], [1, 1], [1, 1], [1, 2], [2, 0]])
    table = similarity.shared_ids(ids)
    assert table.values.tolist() == [[1, 1, 1, 3], [1, 2, 2, 1], [2, 1, 1, 2], [2, 2, 2, 1]]
    features = np.array([[0.0], [1], [1], [3], [-5]])

    def decode(some):
        first = np.array([0, 2, -5])[some[:, 0]]
        return (first + np.array([0, -1, 1])[some[:, 1]])[:, None]

    cost = similarity.quantization_error(features, ids, decode)
    assert cost["ids"].tolist() == [2, 3]
    assert cost["bits"].tolist() == pytest.approx([1, np.log2(3)])
    assert cost["error"].tolist() == pytest.approx([3 / 36, 0])
    assert cost["alone"].tolist() == [1 / 4, 2 / 4]
