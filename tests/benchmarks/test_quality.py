"""The comparison on real clicks: its stand-in for FuxiCTR, its table and its command."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import quality
from mmctr.content.fusion import item_embeddings


def test_the_stand_in_trains_as_fuxictr_does(tiny, monkeypatch):
    pytest.importorskip("fuxictr")
    monkeypatch.setattr(quality, "EPOCHS", 1)
    # Without dropout, which each draws for itself, nothing is random but weights and batches.
    # Small steps: the first ones of Adam turn rounding errors of small gradients into whole ones.
    settings = {"dropout": 0.0, "attention_dropout": 0.0, "batch_size": 64, "learning_rate": 1e-4}
    settings |= {"embedding_dim": 16, "hidden": (64, 32)}
    systems = quality.fuxictr(**settings), quality.fuxictr_by_mmctr(**settings)
    few = replace(tiny, splits=tiny.splits | {"train": tiny.train.select(slice(0, 256))})
    task = quality.Task(few, item_embeddings(tiny, "v1"), max_history=5, seed=1)
    theirs, ours = (next(system(task)).valid for system in systems)
    np.testing.assert_allclose(ours, theirs, atol=0.01 * theirs.std())


def test_the_table_says_by_how_much_a_system_leads(tiny, tmp_path):
    rows, random = tiny.valid, np.random.default_rng(0)
    task = quality.Task(tiny, np.zeros((1, 1)), max_history=5, seed=1)
    scores = {
        quality.REFERENCE: random.random(len(rows)),
        "mmctr default": 0.3 * rows.label + 0.7 * random.random(len(rows)),
    }
    for name, score in scores.items():
        outcome = quality.Outcome(score, score, [(1.0, 0.5), (3.0, 0.6 + (name != "FuxiCTR DIN"))])
        quality._keep(outcome, name, task, tmp_path, finished=True)
    table = quality.summary(tiny, tmp_path, [1], "valid").set_index("system")
    expected = {name: roc_auc_score(rows.label, score) for name, score in scores.items()}
    for name, score in expected.items():
        assert table["AUC"][name] == pytest.approx(score, abs=1e-6)
    clicks = np.bincount(tiny.train.target, tiny.train.label, tiny.catalog.n_items + 1)
    cold = clicks[rows.target] < 5
    for name, score in scores.items():
        expected_cold = roc_auc_score(rows.label[cold], score[cold])
        assert table["cold"][name] == pytest.approx(expected_cold, abs=1e-6)
    line = table.loc["mmctr default"]
    assert line["lead"] == pytest.approx(
        expected["mmctr default"] - expected[quality.REFERENCE], abs=1e-6
    )
    assert line["from"] < line["lead"] < line["to"]
    assert line["s to FuxiCTR's best"] == 3.0


def test_an_unknown_system_gets_a_sentence(tiny, tmp_path, monkeypatch):
    command = ["quality", str(tiny.folder), "--out", str(tmp_path), "--systems", "mmctr, best"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="System 'mmctr' is unknown: choose of 'popularity'"):
        quality.main()
