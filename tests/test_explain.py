"""Explanations against the model itself, naive loops and scikit-learn."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from mmctr import explain
from mmctr.data.dataset import Impressions
from mmctr.errors import ConfigError, DataError
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


def test_attention_goes_on_over_all_batches(tiny, tiny_run):
    model, rows = tiny_run.model(), tiny.train.select(np.arange(2200))
    table = explain.attention(model, rows)
    heads, read = model.config.heads, np.minimum(rows.history_length, model.config.max_history)
    counts = table["row"].value_counts().reindex(range(2200), fill_value=0)
    assert counts.tolist() == (heads * read).tolist()
    last = table[(table["row"] == 2199) & (table["head"] == 1)].sort_values("age")
    assert last["item"].tolist() == rows.history(2199)[::-1][: read[2199]].tolist()
    assert (table["target"].to_numpy() == rows.target[table["row"]]).all()


def test_attention_leaves_out_clicks_that_the_model_does_not_read(tiny):
    model = DIN.for_catalog(DINConfig.of(max_history=3, embedding_dim=2), tiny.catalog, None).eval()
    table = explain.attention(model, tiny.valid)
    assert table["age"].max() == 3
    one = table[table["head"] == 1].groupby("row").size()
    assert (one == np.minimum(tiny.valid.history_length, 3)[one.index]).all()
    np.testing.assert_allclose(table.groupby(["row", "head"])["weight"].sum(), 1, atol=1e-5)


def test_field_weights_summarise_senet(tiny, tiny_run):
    model = tiny_run.model()
    table = explain.field_weights(model, tiny.valid)
    batch = next(Batches(tiny.valid, model).in_order(len(tiny.valid)))
    weights = model.field_weights(batch).detach().numpy()
    assert table["field"].tolist() == model.fields
    np.testing.assert_allclose(table["mean"], weights.mean(axis=0), atol=1e-6)
    for number, line in enumerate(table.itertuples()):
        low, high = np.percentile(weights[:, number], [5, 95])
        assert (line.low, line.high) == pytest.approx((low, high), abs=1e-6)


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


@given(st.lists(st.integers(1, 9), min_size=3), st.data())
def test_without_click_leaves_shared_slices_to_the_others(flat, data):
    """Rows that overlap lose a click each, and the given rows none."""
    spans = st.tuples(st.integers(0, len(flat)), st.integers(0, len(flat))).map(sorted)
    spans = data.draw(st.lists(spans.filter(lambda span: span[0] < span[1]), min_size=1))
    start, end = np.array(spans).T
    number = np.arange(len(spans))
    rows = Impressions(number, number, None, start, end, np.array(flat, dtype=np.int32))
    age = np.array([data.draw(st.integers(1, last - first)) for first, last in spans])
    shorter = explain.without_click(rows, age)
    for row, (first, last) in enumerate(spans):
        expected = flat[first:last]
        assert rows.history(row).tolist() == expected
        del expected[len(expected) - age[row]]
        assert shorter.history(row).tolist() == expected


def shortened(rows, clicks):
    """The rows with their latest clicks only."""
    start = np.maximum(rows.history_start, rows.history_end - clicks)
    return Impressions(**(vars(rows) | {"history_start": start}))


@pytest.mark.parametrize("clicks", [0, 1])
def test_short_histories_leave_nothing_to_remove(tiny, tiny_run, clicks):
    effects = explain.removal_effects(tiny_run.model(), shortened(tiny.valid, clicks))
    assert effects.columns.tolist() == ["row", "probability", "most_attended", "random"]
    assert effects.empty


def test_of_two_clicks_the_other_one_is_removed_at_random(tiny, tiny_run):
    model, rows = tiny_run.model(), shortened(tiny.valid, 2)
    effects = explain.removal_effects(model, rows)
    assert effects["row"].tolist() == np.flatnonzero(rows.history_length == 2).tolist()
    chosen = rows.select(effects["row"].to_numpy())
    np.testing.assert_allclose(effects["probability"], predict(model, chosen), atol=1e-6)
    removals = [
        predict(model, explain.without_click(chosen, np.full(len(chosen), age)))
        - effects["probability"]
        for age in (1, 2)
    ]
    expected = np.sort(np.stack(removals), axis=0)
    found = np.sort(effects[["most_attended", "random"]].to_numpy().T, axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


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
    zero = explain.cosine(embedding, np.array([0, 0]), np.array([0, 5]))
    assert zero.tolist() == [0, 0]


@pytest.mark.parametrize("count", [4, 5, 100])
def test_neither_padding_nor_the_item_is_its_own_neighbour(count):
    embedding = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [-1, 0], [-1, -1]], dtype=np.float32)
    assert explain.nearest(embedding, 1, count).tolist() == [2, 3, 5, 4]


def test_co_click_pairs_are_neighbours_in_train_histories(tiny):
    item, together, apart = explain.co_click_pairs(tiny, count=200)
    seen = set()
    for row in range(len(tiny.train)):
        history = tiny.train.history(row).tolist()
        seen |= set(pairwise(history))
    assert set(zip(item.tolist(), together.tolist(), strict=True)) <= seen
    assert sorted(apart) == sorted(together)


def test_co_clicks_are_drawn_once_by_seed_and_may_be_absent(tiny):
    pairs = explain.co_click_pairs(tiny, count=50)
    assert [len(part) for part in pairs] == [50] * 3
    for found, again in zip(pairs, explain.co_click_pairs(tiny, count=50), strict=True):
        np.testing.assert_array_equal(found, again)
    other = explain.co_click_pairs(tiny, count=50, seed=1)
    assert not np.array_equal(pairs[0], other[0])
    lonely = replace(tiny, splits=tiny.splits | {"train": shortened(tiny.train, 1)})
    none = explain.co_click_pairs(lonely)
    assert [len(part) for part in none] == [0] * 3
    assert np.isnan(explain.co_click_auc(tiny.catalog.text_features, none))


@given(st.lists(st.lists(st.integers(1, 50), max_size=6), min_size=1, max_size=6))
def test_all_co_clicks_are_found_where_there_are_few(histories):
    flat = np.array([item for history in histories for item in history], dtype=np.int32)
    end = np.cumsum([len(history) for history in histories])
    start = end - [len(history) for history in histories]
    number = np.arange(len(histories))
    train = Impressions(number, number, None, start, end, flat)
    item, together, apart = explain.co_click_pairs(SimpleNamespace(train=train))
    expected = sorted(pair for history in histories for pair in pairwise(history))
    assert sorted(zip(item.tolist(), together.tolist(), strict=True)) == expected
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
    clicked = (rows.label == 1) & (rows.history_length >= 2)
    assert probability[cases["A foreseen click"]] == probability[clicked].max()
    assert probability[cases["A missed click"]] == probability[clicked].min()
    others = np.delete(rows.history_length, list(cases.values()))
    assert rows.history_length[cases["A long history"]] >= max(2, others.max())


def test_cases_that_there_are_not_are_left_out(tiny):
    rows, probability = tiny.valid, np.full(len(tiny.valid), 0.5)
    unclicked = Impressions(**(vars(rows) | {"label": np.zeros(len(rows))}))
    assert list(explain.cases(unclicked, probability)) == ["A long history"]
    one = np.zeros(len(rows))
    one[rows.history_length.argmax()] = 1
    single = Impressions(**(vars(rows) | {"label": one}))
    found = explain.cases(single, probability)
    assert found["A foreseen click"] == rows.history_length.argmax()
    assert "A missed click" not in found


@pytest.mark.parametrize(("longest", "found"), [(0, "at most 0 clicks"), (1, "at most 1 clicks")])
def test_histories_without_a_choice_are_one_sentence(tiny, longest, found):
    with pytest.raises(DataError, match=found):
        explain.cases(shortened(tiny.valid, longest), np.full(len(tiny.valid), 0.5))


def test_two_clicks_are_enough(tiny):
    rows = shortened(tiny.valid, 2)
    cases = explain.cases(rows, np.full(len(rows), 0.5))
    assert len(cases) == 3
    assert (rows.history_length[list(cases.values())] == 2).all()
