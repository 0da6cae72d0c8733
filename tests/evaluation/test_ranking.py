"""Whole catalogs are ranked as a naive loop over users and items ranks them."""

import math

import numpy as np
import pytest

from mmctr.evaluation.ranking import ranking_table, requests
from mmctr.training.prediction import predict
from tests.evaluation.test_recommend import row_of


def test_a_request_is_a_user_s_first_history_and_all_clicks(tiny):
    rows, found = tiny.valid, requests(tiny, "valid")
    assert [one.user for one in found] == sorted({int(one) for one in rows.user[rows.label == 1]})
    for request in found[:30]:
        own = np.flatnonzero(rows.user == request.user)
        shortest = min(rows.history_length[own])
        assert len(request.history) == shortest
        clicked = {int(rows.target[row]) for row in own if rows.label[row]}
        assert set(request.clicked.tolist()) == clicked
    few = requests(tiny, "valid", users=5, seed=1)
    assert [one.user for one in few] == [one.user for one in requests(tiny, "valid", 5, 1)]
    assert len(few) == 5


def test_the_table_is_that_of_a_naive_loop(tiny, tiny_run):
    table = ranking_table(tiny_run, tiny, "valid", k=10, users=4)
    model, clicks = tiny_run.model(), tiny.train_clicks()
    content = model.embedding.content.numpy()
    content = content / np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-30)
    sums = {}
    for request in requests(tiny, "valid", users=4):
        history = request.history.tolist()
        items = [item for item in range(1, 301) if item not in history]
        scores = {
            "v4": [float(predict(model, row_of(history, item))[0]) for item in items],
            "popularity": [clicks[item] for item in items],
            "cosine": [
                float(sum(content[item] @ content[one] for one in history)) for item in items
            ],
        }
        for group in ("all", "new"):
            for system, score in scores.items():
                pairs = [
                    (-one, item)
                    for one, item in zip(score, items, strict=True)
                    if group == "all" or clicks[item] == 0
                ]
                ranked = [item for _, item in sorted(pairs)][:10]
                relevant = {int(item) for item in request.clicked} & {item for _, item in pairs}
                if relevant:
                    hits = [rank for rank, item in enumerate(ranked) if item in relevant]
                    gain = sum(1 / math.log2(rank + 2) for rank in hits)
                    best = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))
                    sums.setdefault((group, system), []).append(
                        (len(hits) / len(relevant), gain / best)
                    )
    found = {(row.items, row.system): (row.recall, row.ndcg) for row in table.itertuples()}
    assert set(found) == set(sums)
    for name, values in sums.items():
        assert found[name] == pytest.approx(tuple(np.mean(values, axis=0)))
    assert table["users"].max() == 4
