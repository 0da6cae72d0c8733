"""Metrics against scikit-learn, naive loops and hand-computed cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from mmctr.training import metrics

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


def test_auc_of_equal_labels_is_not_a_number():
    assert np.isnan(metrics.auc(np.ones(3), np.arange(3)))


def test_calibration_by_hand():
    label = np.array([0, 1, 1, 1])
    probability = np.array([0.9, 0.2, 0.4, 0.7])
    table = metrics.calibration(label, probability, bins=2)
    assert table["predicted"].tolist() == pytest.approx([0.3, 0.8])
    assert table["observed"].tolist() == [1.0, 0.5]
    assert metrics.calibration_error(label, probability, bins=2) == pytest.approx(0.5)


def test_evaluate_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    probability = rng.random(500).astype(np.float32)
    label = (rng.random(500) < probability).astype(np.float32)
    found = metrics.evaluate(rng.integers(0, 50, 500), label, probability)
    assert found["auc"] == pytest.approx(roc_auc_score(label, probability))
    assert found["logloss"] == pytest.approx(log_loss(label, probability.astype(float)))
    assert found["calibration_error"] < 0.1


def test_interval_covers_the_middle():
    low, high = metrics.interval(np.r_[np.linspace(0, 1, 1001), np.nan])
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_bins_name_their_ranges():
    groups = metrics.bins(np.array([0, 1, 4, 5, 1999, 5000]), [0, 1, 5, 2000])
    assert groups.tolist() == ["0", "1-4", "1-4", "5-1,999", "5-1,999", "2,000+"]


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
