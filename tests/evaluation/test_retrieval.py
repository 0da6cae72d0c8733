"""The top of all items against a loop over users."""

import numpy as np
import pytest

from mmctr.data.impressions import Impressions
from mmctr.evaluation import retrieval
from mmctr.evaluation.retrieval import ALL, AMONG_NEW, NEW
from mmctr.training.prediction import predict


def naive(model, rows, row, clicked, candidates):
    """Recall@20 and NDCG@20 of one user by predict, one place after another."""
    one = rows.select(np.full(len(candidates), row))
    changed = vars(one) | {"target": candidates.astype(np.int32), "levels": None}
    order = np.argsort(-predict(model, Impressions(**changed)), kind="stable")[:20]
    relevant = set(clicked) & set(candidates.tolist())
    gains = [1 / np.log2(place + 2) for place in range(20) if candidates[order[place]] in relevant]
    best = sum(1 / np.log2(place + 2) for place in range(min(20, len(relevant))))
    return (len(gains) / len(relevant), sum(gains) / best) if relevant else None


@pytest.fixture(scope="module")
def some(tiny):
    """Valid rows of twelve users, and which items count as new."""
    clicked = tiny.valid.user[tiny.valid.label == 1]
    rows = tiny.valid.select(np.flatnonzero(np.isin(tiny.valid.user, np.unique(clicked)[:12])))
    new = np.zeros(tiny.catalog.n_items + 1, dtype=bool)
    new[1::3] = True
    return rows, new


def test_recall_and_ndcg_are_those_of_a_loop(tiny, tiny_run, some):
    rows, new = some
    model, items = tiny_run.model(), np.arange(1, tiny.catalog.n_items + 1)
    table = retrieval.top_table(tiny, rows, {"v4": model}, new)
    expected = {ALL: [], NEW: [], AMONG_NEW: []}
    for user in np.unique(rows.user):
        own = np.flatnonzero((rows.user == user) & (rows.label == 1))
        if not len(own):
            continue
        row, clicked = own[0], set(rows.target[own].tolist())
        left = items[~np.isin(items, rows.history(row))]
        fresh = {item for item in clicked if new[item]}
        for kind, wanted, among in (
            (ALL, clicked, left),
            (NEW, fresh, left),
            (AMONG_NEW, fresh, left[new[left]]),
        ):
            found = naive(model, rows, row, wanted, among)
            expected[kind] += [found] if found else []
    for kind, values in expected.items():
        line = table[(table["system"] == "v4") & (table["clicks"] == kind)].iloc[0]
        recall, ndcg = np.mean(values, axis=0)
        assert (line["users"], line["recall"]) == (len(values), pytest.approx(recall))
        assert line["ndcg"] == pytest.approx(ndcg)
        assert line["low"] <= line["recall"] <= line["high"]


def test_popularity_and_cosines_stand_beside_and_popularity_knows_no_new_item(tiny, some):
    rows, new = some
    table = retrieval.top_table(tiny, rows, {}, new, users=9)
    assert table["system"].unique().tolist() == ["popularity", "cosine of text", "cosine of image"]
    assert (table.loc[table["clicks"] == ALL, "users"] == 9).all()
    popular = table[(table["system"] == "popularity") & (table["clicks"] == NEW)]
    assert popular["recall"].tolist() == [0]
    page = retrieval.styled(table).to_html()
    assert page.count("Recall@20") == 3 and ALL in page
    assert f"{ALL} (9 users): " in retrieval.remark(table)
    nothing = retrieval.top_table(tiny, rows, {}, np.zeros_like(new), users=9)
    assert set(nothing["clicks"]) == {ALL}
    assert "None of these users clicked a new item." in retrieval.remark(nothing)
    missed = retrieval.remark(table.assign(recall=0.0))
    assert f"{ALL} (9 users): the recall of every system is 0." in missed
    assert "highest" not in missed, "no system is first where all are equal"
    assert NEW not in retrieval.styled(nothing).to_html()
