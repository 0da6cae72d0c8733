"""Metrics against scikit-learn, naive loops and hand-computed cases."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from mmctr.data.impressions import Impressions
from mmctr.training import metrics
from mmctr.training.metrics import reference_aucs

rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=40
)


def columns(drawn):
    """User, label and score (with ties) of drawn rows."""
    user, label, score = np.array(drawn).T
    return user, label, score / 6 + 0.05


@given(rows)
def test_gauc_equals_a_loop_over_users(drawn):
    user, label, score = columns(drawn)
    total = weight = 0.0
    for name in set(user):
        mine = user == name
        if len(set(label[mine])) == 2:
            total += mine.sum() * roc_auc_score(label[mine], score[mine])
            weight += mine.sum()
    found = metrics.gauc(user, label, score)
    assert np.isnan(found) if weight == 0 else found == pytest.approx(total / weight)


def test_gauc_weighs_users_by_their_rows():
    user = np.array([1, 1, 2, 2, 2, 2, 3])  # AUC 1 over two rows, 1/3 over four, and no AUC
    label = np.array([1, 0, 1, 0, 0, 0, 1])
    score = np.array([0.9, 0.1, 0.5, 0.1, 0.7, 0.9, 0.3])
    assert metrics.gauc(user, label, score) == pytest.approx((2 * 1 + 4 / 3) / 6)


@given(rows, st.integers(0, 5))
def test_bootstrap_equals_weighted_auc_of_the_same_draw(drawn, seed):
    user, label, score = columns(drawn)
    samples = metrics.bootstrap_auc(user, label, np.stack([score, -score]), resamples=4, seed=seed)
    names, rng = np.unique(user), np.random.default_rng(seed)
    for found, opposite in samples:
        picked = rng.integers(len(names), size=len(names))
        again = np.concatenate([np.flatnonzero(user == names[number]) for number in picked])
        if len(set(label[again])) < 2:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(roc_auc_score(label[again], score[again]))
            assert opposite == pytest.approx(1 - found)


@given(rows)
def test_auc_counts_pairs_and_half_of_the_ties(drawn):
    _, label, score = columns(drawn)
    pairs = np.subtract.outer(score[label == 1], score[label == 0])
    found = metrics.auc(label, score)
    assert (
        found == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
        if pairs.size
        else (np.isnan(found))
    )


def test_equal_labels_have_neither_auc_nor_gauc():
    users = np.array([1, 1, 2])
    assert np.isnan(metrics.auc(np.ones(3), np.arange(3)))
    assert np.isnan(metrics.gauc(users, np.array([1, 1, 0]), np.arange(3)))


def test_logloss_by_hand():
    probability = np.array([0.25, 0.5, 0.8], dtype=np.float32)
    expected = -(np.log(0.75) + np.log(0.5) + np.log(0.8)) / 3
    assert metrics.logloss(np.array([0, 1, 1]), probability) == pytest.approx(expected, rel=1e-6)
    assert metrics.logloss(np.ones(2), np.array([0.5, 0.5])) == pytest.approx(np.log(2))
    assert np.isfinite(metrics.logloss(np.array([0, 1]), np.array([1.0, 0.0], dtype=np.float32)))


@given(rows, st.integers(0, 5))
def test_bootstrap_draws_users_whatever_their_rows(drawn, seed):
    """Rows in several copies are as good as one: nothing is learned from them."""
    user, label, score = columns(drawn)
    once = metrics.bootstrap_auc(user, label, score, resamples=5, seed=seed)
    copied = (np.repeat(values, 3) for values in (user, label, score))
    again = metrics.bootstrap_auc(*copied, resamples=5, seed=seed)
    np.testing.assert_allclose(once, again)


@given(rows, st.integers(0, 5))
def test_bootstrapped_means_are_of_the_rows_of_the_same_draw(drawn, seed):
    user, _, values = columns(drawn)
    samples = metrics.bootstrap_mean(user, values, resamples=4, seed=seed)
    names, rng = np.unique(user), np.random.default_rng(seed)
    for found in samples:
        picked = rng.integers(len(names), size=len(names))
        again = np.concatenate([values[user == names[number]] for number in picked])
        assert found == pytest.approx(again.mean())


def test_bootstrap_of_identical_systems_is_identical():
    rng = np.random.default_rng(3)
    user, label, score = rng.integers(0, 40, 300), rng.integers(0, 2, 300), rng.random(300)
    samples = metrics.bootstrap_auc(user, label, np.stack([score, score, score * 2]), resamples=20)
    np.testing.assert_array_equal(samples[:, 0], samples[:, 1])
    np.testing.assert_array_equal(samples[:, 0], samples[:, 2])
    other = metrics.bootstrap_auc(user, label, score, resamples=20, seed=1)
    assert not np.array_equal(samples[:, :1], other)


def test_the_bootstrap_interval_covers_the_true_auc():
    # Scores of clicks and non-clicks are normal, one apart: their AUC is Phi(1 / sqrt 2).
    truth, covered = 0.5 * (1 + math.erf(0.5)), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 2, 150)
        samples = metrics.bootstrap_auc(
            np.arange(150), label, rng.normal(label, 1), resamples=100, seed=seed
        )
        low, high = metrics.interval(samples[:, 0])
        covered += low <= truth <= high
    assert covered >= 51  # 95% of 60 are 57


def test_calibration_by_hand():
    label = np.array([0, 1, 1, 1])
    probability = np.array([0.9, 0.2, 0.4, 0.7])
    table = metrics.calibration(label, probability, bins=2)
    assert table["predicted"].tolist() == pytest.approx([0.3, 0.8])
    assert table["observed"].tolist() == [1.0, 0.5]
    assert metrics.calibration_error(label, probability, bins=2) == pytest.approx(0.5)


@given(rows, st.integers(1, 50))
def test_calibration_keeps_all_rows_and_their_means(drawn, bins):
    _, label, probability = columns(drawn)
    table = metrics.calibration(label, probability, bins)
    assert table["rows"].sum() == len(label)
    assert table["rows"].max() - table["rows"].min() <= 1
    assert table["predicted"].is_monotonic_increasing or len(table) == 1
    for name, values in (("predicted", probability), ("observed", label)):
        assert np.average(table[name], weights=table["rows"]) == pytest.approx(values.mean())
    gap = abs(probability.mean() - label.mean())
    assert metrics.calibration_error(label, probability, bins) >= gap - 1e-9


@given(rows, st.floats(0.001, 0.9))
def test_corrected_calibration_weighs_non_clicks_until_clicks_have_their_share(drawn, click_rate):
    _, label, probability = columns(drawn)
    assume(0 < label.mean() < 1)
    probability = np.clip(probability, 0.01, 0.99)
    table = metrics.corrected_calibration(label, probability, 0.25, click_rate)
    per_click = (1 - click_rate) / click_rate * label.sum() / (1 - label).sum()
    order = np.argsort(metrics.corrected(probability, 0.25, click_rate), kind="stable")
    clicks = total = 0
    for line, part in zip(table.itertuples(), np.array_split(order, 10), strict=False):
        weight = [1 if label[row] else per_click for row in part]
        assert line.observed == pytest.approx(np.average(label[part], weights=weight))
        clicks += line.observed * sum(weight)
        total += sum(weight)
    assert clicks / total == pytest.approx(click_rate)


def test_a_model_of_drawn_negatives_is_right_once_it_is_corrected():
    """Of a million impressions all clicks are kept, and three others for each."""
    rng = np.random.default_rng(0)
    true = rng.beta(1, 60, 1_000_000)
    label = (rng.random(len(true)) < true).astype(np.float32)
    others = np.flatnonzero(label == 0)
    kept = np.r_[np.flatnonzero(label), rng.choice(others, 3 * int(label.sum()), replace=False)]
    share = 3 * label.sum() / len(others)
    as_trained = true / (true + (1 - true) * share)
    table = metrics.corrected_calibration(label[kept], as_trained[kept], 0.25, label.mean())
    np.testing.assert_allclose(table["observed"], table["predicted"], rtol=0.1, atol=0.0005)
    assert table["predicted"].max() < 0.1


def test_evaluate_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    probability = rng.random(500).astype(np.float32)
    label = (rng.random(500) < probability).astype(np.float32)
    user, zeros = rng.integers(0, 50, 500), np.zeros(500, dtype=np.int64)
    rows = Impressions(user, zeros, label, zeros, zeros, zeros)
    found = metrics.evaluate(rows, probability)
    assert set(found) == {"auc", "logloss", "gauc", "calibration_error"}
    shown = rng.integers(0, 90, 500)
    together = metrics.evaluate(replace(rows, impression=shown), probability)
    assert together == found | {"gauc_impression": metrics.gauc(shown, label, probability)}
    assert found["auc"] == pytest.approx(roc_auc_score(label, probability))
    assert found["logloss"] == pytest.approx(log_loss(label, probability.astype(float)))
    assert found["calibration_error"] < 0.1


def test_interval_covers_the_middle():
    low, high = metrics.interval(np.r_[np.linspace(0, 1, 1001), np.nan])
    assert (low, high) == pytest.approx((0.025, 0.975))
    assert metrics.interval(np.linspace(0, 1, 1001), level=0.5) == pytest.approx((0.25, 0.75))


def test_bins_name_their_ranges():
    groups = metrics.bins(np.array([0, 1, 4, 5, 1999, 5000]), [0, 1, 5, 2000])
    assert groups.tolist() == ["0", "1-4", "1-4", "5-1,999", "5-1,999", "2,000+"]
    assert groups.cat.categories.tolist() == ["0", "1-4", "5-1,999", "2,000+"]
    assert groups.cat.ordered


@given(
    st.lists(st.integers(-20, 60), min_size=1),
    st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_every_value_is_in_the_group_that_starts_last_before_it(values, edges):
    groups = metrics.bins(np.array(values), edges)
    for value, code in zip(values, groups.cat.codes, strict=True):
        # Below the first edge there is no group: code -1.
        assert code == sum(edge <= value for edge in edges) - 1


def test_auc_by_group_is_the_auc_within_each_group():
    rng = np.random.default_rng(1)
    label, score = rng.integers(0, 2, 300), rng.random(300)
    groups = metrics.bins(rng.integers(0, 3, 300), [0, 1, 2])
    systems = {"one": score, "opposite": -score}
    table = metrics.auc_by_group(np.arange(300), label, systems, groups)
    assert table["group"].tolist() == ["0", "0", "1", "1", "2+", "2+"]
    for line in table.itertuples():
        mine = (groups == line.group).to_numpy()
        assert line.rows == mine.sum()
        expected = roc_auc_score(label[mine], systems[line.system][mine])
        assert line.auc == pytest.approx(expected)
        assert line.low <= line.auc <= line.high


def test_groups_without_both_labels_are_left_out():
    label = np.array([0, 1, 1, 1, 0, 1])
    groups = metrics.bins(np.array([0, 0, 1, 1, -1, -1]), [0, 1, 2])
    table = metrics.auc_by_group(np.arange(6), label, {"v1": np.arange(6.0)}, groups)
    assert table[["group", "rows", "auc"]].to_numpy().tolist() == [["0", 2, 1.0]]
    none = metrics.auc_by_group(np.arange(6), np.ones(6), {"v1": np.arange(6.0)}, groups)
    assert none.empty
    assert none.columns.tolist() == table.columns.tolist()


def test_references_are_popularity_and_the_true_probability(tiny, easy):
    clicks = [0] * (tiny.catalog.n_items + 1)
    for target, label in zip(tiny.train.target, tiny.train.label, strict=True):
        clicks[target] += int(label)
    found = reference_aucs(tiny, tiny.valid)
    score = [clicks[target] for target in tiny.valid.target]
    assert found["popularity"] == pytest.approx(roc_auc_score(tiny.valid.label, score))
    expected = roc_auc_score(tiny.valid.label, tiny.valid.probability)
    assert found["oracle"] == pytest.approx(expected)
    assert set(reference_aucs(easy, easy.valid)) == {"popularity"}


def test_probabilities_learned_from_drawn_negatives_are_right_for_the_rate_that_is_known():
    # A logistic population with 2% of clicks, of whose negatives a few are drawn: what scikit-learn
    # learns from these is wrong for the population until it is corrected.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200_000, 3))
    logit = features @ [1.0, -0.5, 0.8] - 4.8
    label = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    clicks, others = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    drawn = np.r_[clicks, rng.choice(others, 3 * len(clicks), replace=False)]
    model = LogisticRegression(C=1e6).fit(features[drawn], label[drawn])
    artificial = model.predict_proba(features)[:, 1]
    corrected = metrics.corrected(artificial, label[drawn].mean(), label.mean())
    assert abs(artificial.mean() - label.mean()) > 0.1
    assert corrected.mean() == pytest.approx(label.mean(), rel=0.03)
    assert metrics.calibration_error(label, corrected) < 0.002
    assert corrected == pytest.approx(1 / (1 + np.exp(-logit)), rel=0.25, abs=0.01)
    # The rate that it was trained with changes nothing.
    assert metrics.corrected(artificial, 0.25, 0.25) == pytest.approx(artificial)


def test_weights_of_calibration_count_a_row_as_many():
    label, probability = np.array([1, 0, 0, 1]), np.array([0.1, 0.2, 0.6, 0.8])
    weight = np.array([1, 3, 2, 1])
    weighted = metrics.calibration(label, probability, 1, weight)
    repeated = metrics.calibration(label.repeat(weight), probability.repeat(weight), 1)
    names = ["predicted", "observed"]
    pd.testing.assert_frame_equal(weighted[names], repeated[names])


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-9, 9)), min_size=2, max_size=30),
    st.integers(1, 40),
)
def test_recall_and_ndcg_of_the_best_are_those_of_naive_loops(drawn, k):
    clicked, score = np.array([one for one, _ in drawn]), np.array([one for _, one in drawn])
    ranked = sorted(range(len(drawn)), key=lambda place: (-score[place], place))[:k]
    recall, ndcg = metrics.recall_at(clicked, score, k), metrics.ndcg_at(clicked, score, k)
    if not clicked.any():
        assert np.isnan(recall) and np.isnan(ndcg)
        return
    assert recall == pytest.approx(sum(clicked[ranked]) / sum(clicked))
    gain = sum(1 / math.log2(rank + 2) for rank, place in enumerate(ranked) if clicked[place])
    best = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(drawn), clicked.sum())))
    assert ndcg == pytest.approx(gain / best)


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.integers(1, 40), st.integers(0, 99))
def test_ndcg_without_ties_is_scikit_learns(clicked, k, seed):
    assume(any(clicked))
    score = np.random.default_rng(seed).permutation(len(clicked)).astype(float)
    expected = ndcg_score([np.array(clicked, dtype=int)], [score], k=k)
    assert metrics.ndcg_at(np.array(clicked), score, k) == pytest.approx(expected)
