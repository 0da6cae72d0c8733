"""Ranking measures against scikit-learn, and against loops over every order of equal scores."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from mmctr.training import ranking
from mmctr.training.metrics import gauc

rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=16
)
short = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=7
)


def groups(drawn):
    """Label and score of each group that has a click and a negative."""
    group, label, score = np.array(drawn).T
    for name in set(group):
        mine = group == name
        if len(set(label[mine])) == 2:
            yield label[mine], score[mine] / 4


def measured(drawn, k):
    group, label, score = np.array(drawn).T
    # Neither the numbers of groups nor the order of rows means anything.
    return ranking.ranking(1000 - 7 * group, label.astype(np.float32), score / 4, k)


@given(rows, st.integers(1, 20))
def test_ndcg_is_scikit_learns_with_ties(drawn, k):
    found, own = measured(drawn, k), list(groups(drawn))
    assert found.groups == len(own)
    assert found.short == sum(len(label) <= k for label, _ in own)
    expected = [ndcg_score([label], [score], k=k) for label, score in own]
    assert np.isnan(found.ndcg) if not own else found.ndcg == pytest.approx(np.mean(expected))


@given(short, st.integers(1, 4))
def test_all_measures_are_means_over_every_order_of_equal_scores(drawn, k):
    found, measures = measured(drawn, k), []
    for label, score in groups(drawn):
        orders = []
        for order in permutations(range(len(label))):
            if list(score[list(order)]) != sorted(score, reverse=True):
                continue
            ranked = label[list(order)]
            gain = sum(ranked[rank] / math.log2(rank + 2) for rank in range(min(k, len(ranked))))
            ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, ranked.sum())))
            first = list(ranked).index(1) + 1
            orders.append((gain / ideal, ranked[:k].sum() / ranked.sum(), 1 / first))
        measures.append(np.mean(orders, axis=0))
    if measures:
        expected = np.mean(measures, axis=0)
        assert (found.ndcg, found.recall, found.mrr) == pytest.approx(tuple(expected))
    else:
        assert np.isnan([found.ndcg, found.recall, found.mrr]).all()


def test_by_hand():
    # The first user's click is third of three, the second's clicks are first and last of four; the
    # third has no negative, the fourth no click.
    user = np.array([1, 1, 1, 2, 2, 2, 2, 3, 4])
    label = np.array([0, 0, 1, 1, 0, 0, 1, 1, 0])
    score = np.array([0.9, 0.8, 0.1, 0.7, 0.6, 0.5, 0.4, 0.2, 0.3])
    found = ranking.ranking(user, label, score, k=3)
    assert (found.groups, found.short) == (2, 1)
    assert found.mrr == pytest.approx((1 / 3 + 1) / 2)
    assert found.recall == pytest.approx((1 + 1 / 2) / 2)
    best = 1 + 1 / math.log2(3)
    assert found.ndcg == pytest.approx((1 / math.log2(4) + 1 / best) / 2)


def test_many_rows_of_one_score_and_numbers_of_any_kind():
    """Popularity ties thousands of rows, and is whole numbers."""
    label = np.r_[np.ones(3), np.zeros(9997)]
    found = ranking.ranking(np.full(10_000, 2**40), label, np.zeros(10_000, np.int64))
    assert found.recall == pytest.approx(10 / 10_000)
    # The first of three random ones among n has rank j with chance C(n - j, 2) / C(n, 3).
    chances = [math.comb(10_000 - j, 2) / math.comb(10_000, 3) for j in range(1, 9999)]
    expected = sum(chance / j for j, chance in enumerate(chances, start=1))
    assert found.mrr == pytest.approx(expected, rel=1e-6)
    rng = np.random.default_rng(0)
    group, label = rng.integers(0, 40, 900), rng.integers(0, 2, 900)
    whole = rng.integers(0, 9, 900)
    once = ranking.ranking(group, label, whole)
    assert once == ranking.ranking(group, label, whole.astype(np.float32))
    order = rng.permutation(900)
    assert once == pytest.approx(ranking.ranking(group[order], label[order], whole[order]))


def test_the_table_ranks_within_users_and_within_impressions(tiny):
    valid = tiny.valid
    systems = {"model": valid.probability, "opposite": -valid.probability}
    table = ranking.ranking_table(valid, systems)
    assert table["within"].unique().tolist() == ["user"]
    shown = np.random.default_rng(0).integers(0, 20, len(valid))
    both = ranking.ranking_table(replace(valid, impression=shown), systems)
    pd.testing.assert_frame_equal(both.iloc[:2], table)
    for line, group in zip(both.itertuples(), [valid.user] * 2 + [shown] * 2, strict=True):
        score = systems[line.system]
        assert gauc(group, valid.label, score) == pytest.approx(line.GAUC)
        found = ranking.ranking(group, valid.label, score)
        assert both.iloc[line.Index, 4:].tolist() == [found.ndcg, found.recall, found.mrr]
    words = ranking.in_words(replace(valid, impression=shown))
    assert f"of {len(np.unique(valid.user)):,} users" in words
    mixed = pd.Series(valid.label).groupby(shown).nunique() == 2
    assert f"Within {mixed.sum()} of {len(mixed)} impressions" in words


def test_what_is_computed_on_is_said(tiny):
    # Three users of two rows each; the last has clicks only.
    few = tiny.valid.select(np.arange(6))
    few = replace(few, user=np.array([1, 1, 2, 2, 3, 3]), label=np.array([1, 0, 0, 1, 1, 1]))
    assert ranking.in_words(few) == (
        "Within 2 of 3 users, those with a click and a negative; in all of them there are at most "
        "10 rows, so that Recall@10 is 1 however they are ranked."
    )
    none = replace(few, user=np.arange(6))
    assert ranking.in_words(none) == "None of 6 users has a click and a negative to rank."
