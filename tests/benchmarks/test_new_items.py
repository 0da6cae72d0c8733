"""The comparison on new items: its cosines, ranks and table."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import new_items
from benchmarks.codes import product_codes


def test_cosines_are_those_of_a_loop(tiny):
    vectors = new_items.unit_vectors(tiny.catalog.text_features)
    rows = tiny.valid.select(np.arange(50))
    found = new_items.cosines(rows, vectors, latest=5)
    for row in range(len(rows)):
        own, clicks = vectors[rows.target[row]], rows.history(row)[-5:]
        cosine = sorted(float(own @ vectors[item]) for item in clicks)
        expected = [0.0] * 4
        if cosine:
            last = float(own @ vectors[clicks[-1]])
            expected = [np.mean(cosine), np.mean(cosine[-3:]), cosine[-1], last]
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_a_rank_counts_the_candidates_before_the_clicked_item(tiny):
    """By an order of the items that is known: half of those with equal scores stand before."""
    order = np.arange(tiny.catalog.n_items + 1) // 2
    found = new_items.ranks(tiny, tiny.valid, lambda rows: order[rows.target])["all"]
    clicked = np.flatnonzero(tiny.valid.label == 1)
    chosen = np.random.default_rng(0).permutation(clicked)[: new_items.RANKED]
    for rank, row in zip(found, chosen, strict=True):
        target, history = tiny.valid.target[row], set(tiny.valid.history(row).tolist())
        others = [item for item in range(1, len(order)) if item not in history | {target}]
        above = sum(order[item] > order[target] for item in others)
        equal = sum(order[item] == order[target] for item in others)
        assert rank == 1 + above + equal / 2


def test_the_table_is_within_groups(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(new_items, "RESAMPLES", 20)
    names = ("popularity", "cosine of text")
    for name in names:
        new_items.measure(name, tiny, 1, tmp_path)
    table = new_items.table(tiny, tmp_path, [1, 2], "valid").set_index("system")
    rows, clicks = tiny.valid, tiny.train_clicks()
    assert list(table.index) == list(names) and (table["seeds"] == 1).all()
    warm = clicks[rows.target] >= 5
    for name in names:
        score = new_items.SYSTEMS[name](tiny, 1)(rows)
        for group, chosen in (("all", np.full(len(rows), True)), ("warm", warm)):
            expected = roc_auc_score(rows.label[chosen], score[chosen])
            assert float(table[group][name].split()[0]) == pytest.approx(expected, abs=1e-4)


def test_an_unknown_system_gets_a_sentence(tiny, tmp_path, monkeypatch):
    command = ["new_items", str(tiny.folder), "--out", str(tmp_path), "--systems", "mmctr"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="System 'mmctr' is unknown: choose of popularity;"):
        new_items.main()


def test_other_codes_tell_slices_that_differ():
    """Three slices of two kinds each: eight kinds of items, of which product codes have all."""
    kinds = np.array(list(np.ndindex(2, 2, 2)), dtype=np.float32).repeat(16, axis=1)
    embedding = np.vstack([np.zeros((1, 48), np.float32), np.tile(kinds, (4, 1))])
    codes = product_codes(embedding)
    assert codes.dtype == np.int32 and not codes[0].any() and (codes[1:] > 0).all()
    for part, kind in zip(codes[1:].T, np.tile(kinds, (4, 1))[:, ::16].T, strict=True):
        assert len(set(zip(part, kind, strict=True))) == 2
