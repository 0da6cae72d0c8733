"""Explanations against the model itself, naive loops and scikit-learn."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from mmctr import explain
from mmctr.data.dataset import Impressions
from mmctr.errors import ConfigError
from mmctr.model.din import DIN, DINConfig
from mmctr.training.batches import Batches
from mmctr.training.prediction import predict


def test_attention_names_the_clicks_that_the_model_weighs(tiny, tiny_run):
    model, rows = tiny_run.model(), tiny.valid
    table = explain.attention(model, rows)
    for row in (0, 5, 17):
        mine = table[(table["row"] == row) & (table["head"] == 2)].sort_values("age")
        assert mine["item"].tolist() == rows.history(row)[::-1].tolist()
        assert mine["age"].tolist() == list(range(1, len(mine) + 1))
        assert set(mine["target"]) <= {rows.target[row]}
        batch = next(Batches(rows.select(np.array([row])), model).in_order(1))
        weights = model.attention_weights(batch).detach().numpy()
        np.testing.assert_allclose(mine["weight"], weights[::-1, 1], atol=1e-6)
    totals = table.groupby(["row", "head"])["weight"].sum()
    np.testing.assert_allclose(totals, 1, atol=1e-5)


def test_field_weights_summarise_senet(tiny, tiny_run):
    model = tiny_run.model()
    table = explain.field_weights(model, tiny.valid)
    batch = next(Batches(tiny.valid, model).in_order(len(tiny.valid)))
    weights = model.field_weights(batch).detach().numpy()
    assert table["field"].tolist() == model.fields
    np.testing.assert_allclose(table["mean"], weights.mean(axis=0), atol=1e-6)
    assert ((table["low"] <= table["mean"]) & (table["mean"] <= table["high"])).all()


def test_without_senet_there_are_no_field_weights(tiny):
    model = DIN.for_catalog(DINConfig.of(senet=False), tiny.catalog, None).eval()
    with pytest.raises(ConfigError, match="has no SENet"):
        explain.field_weights(model, tiny.valid)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1), st.data())
def test_without_click_equals_a_loop(histories, data):
    flat = np.concatenate([np.array(history, dtype=np.int32) for history in histories])
    end = np.cumsum([len(history) for history in histories])
    number = np.arange(len(histories))
    start = end - [len(history) for history in histories]
    rows = Impressions(number, number.astype(np.int32), None, start, end, flat)
    age = np.array([data.draw(st.integers(1, len(history))) for history in histories])
    shorter = explain.without_click(rows, age)
    for row, history in enumerate(histories):
        expected = history[: len(history) - age[row]] + history[len(history) - age[row] + 1 :]
        assert shorter.history(row).tolist() == expected
        assert shorter.target[row] == rows.target[row]


def test_removal_effects_equal_predicting_by_hand(tiny, tiny_run):
    model = tiny_run.model()
    effects = explain.removal_effects(model, tiny.valid)
    assert (tiny.valid.history_length[effects["row"]] >= 2).all()
    attention = explain.attention(model, tiny.valid)
    for line in effects.head(5).itertuples():
        row = tiny.valid.select(np.array([line.row]))
        mean = attention[attention["row"] == line.row].groupby("age")["weight"].mean()
        removed = explain.without_click(row, np.array([mean.idxmax()]))
        change = predict(model, removed)[0] - predict(model, row)[0]
        assert line.most_attended == pytest.approx(change, abs=1e-6)
        others = [
            predict(model, explain.without_click(row, np.array([age])))[0] - line.probability
            for age in mean.index
            if age != mean.idxmax()
        ]
        assert min(abs(np.array(others) - line.random)) < 1e-6


def test_cosine_and_nearest_agree_with_scikit_learn():
    embedding = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    embedding[0] = 0
    expected = cosine_similarity(embedding)
    left, right = np.divmod(np.arange(900), 30)
    np.testing.assert_allclose(explain.cosine(embedding, left, right), expected.ravel(), atol=1e-6)
    order = np.argsort(-expected[7, 1:]) + 1
    assert explain.nearest(embedding, 7, 4).tolist() == order[order != 7][:4].tolist()


def test_co_click_pairs_are_neighbours_in_train_histories(tiny):
    item, together, apart = explain.co_click_pairs(tiny, count=200)
    seen = set()
    for row in range(len(tiny.train)):
        history = tiny.train.history(row).tolist()
        seen |= set(pairwise(history))
    assert set(zip(item.tolist(), together.tolist(), strict=True)) <= seen
    assert sorted(apart) == sorted(together)


def test_co_click_auc_finds_what_was_planted(tiny):
    pairs = explain.co_click_pairs(tiny)
    random = np.random.default_rng(0).normal(size=(tiny.catalog.n_items + 1, 8))
    assert explain.co_click_auc(random, pairs) == pytest.approx(0.5, abs=0.05)
    planted = np.array([1] * 5), np.array([2] * 5), np.array([3] * 5)
    embedding = np.array([[0, 0], [1, 0], [1, 0.1], [0, 1]])
    assert explain.co_click_auc(embedding, planted) == 1


def test_cases_are_what_they_are_called(tiny):
    rows = tiny.valid
    probability = np.random.default_rng(0).random(len(rows))
    cases = explain.cases(rows, probability)
    assert len(set(cases.values())) == len(cases) == 3
    clicked = (rows.label == 1) & (rows.history_length >= 3)
    assert probability[cases["A foreseen click"]] == probability[clicked].max()
    assert probability[cases["A missed click"]] == probability[clicked].min()
    assert rows.history_length[cases["A long history"]] >= 3
