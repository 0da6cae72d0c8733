"""Comparisons of hand-made runs against naive computations."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mmctr import compare
from mmctr.training.metrics import bootstrap_auc


def made_run(strategy, seed, noise, rows):
    """What compare reads of a run whose scores are the labels plus noise."""
    rng = np.random.default_rng(seed + len(strategy) + ord(strategy[-1]))
    probability = 1 / (1 + np.exp(-(rows.label + rng.normal(0, noise, len(rows.label)))))
    auc = roc_auc_score(rows.label, probability)
    return SimpleNamespace(
        folder=Path(strategy),
        strategy=strategy,
        seed=seed,
        predictions=pd.DataFrame({"probability": probability}),
        config={"sizes": {"content_width": 128, "n_items": 1000}},
        summary={
            "metrics": {"auc": auc, "auc_interval": [auc - 0.1, auc + 0.1], "logloss": 0.5}
            | {"gauc": 0.6},
            "seconds": {"training": 2.0 + seed, "fusion": 1.0},
            "parameters": 10,
        },
    )


@pytest.fixture(scope="module")
def rows():
    """Labels of 60 users with ten rows each."""
    label = np.random.default_rng(0).integers(0, 2, 600).astype(np.float32)
    return SimpleNamespace(user=np.repeat(np.arange(60), 10), label=label)


@pytest.fixture(scope="module")
def runs(rows):
    """v4 clearly better than v1, and v2 as good as v4; two seeds each."""
    noises = {"v1": 3.0, "v2": 1.01, "v4": 1.0}
    return [made_run(name, seed, noise, rows) for name, noise in noises.items() for seed in (1, 2)]


def test_tables(runs):
    lines = compare.run_table(runs)
    assert lines[["strategy", "seed"]].to_numpy().tolist()[:2] == [["v1", 1], ["v1", 2]]
    means = compare.strategy_table(runs).set_index("strategy")
    assert means.index[-1] == "v1"
    for name, part in lines.groupby("strategy"):
        assert means.loc[name, "AUC"] == pytest.approx(part["auc"].mean())
        assert means.loc[name, "seeds"] == 2
    assert means.loc["v4", "training (s)"] == pytest.approx(3.5)
    assert means.loc["v4", "embedding (MB)"] == pytest.approx(128 * 4 * 1000 / 1e6)


def test_paired_differences_equal_the_naive_computation(runs, rows):
    table = compare.paired_differences(runs, rows).set_index("strategy")
    best = compare.strategy_table(runs)["strategy"][0]
    assert best not in table.index
    for name in table.index:
        scores = [run.predictions["probability"] for run in runs if run.strategy in (name, best)]
        names = np.array([run.strategy for run in runs if run.strategy in (name, best)])
        aucs = [roc_auc_score(rows.label, score) for score in scores]
        mine = np.mean([a for a, n in zip(aucs, names, strict=True) if n == name])
        other = np.mean([a for a, n in zip(aucs, names, strict=True) if n == best])
        assert table.loc[name, "difference"] == pytest.approx(mine - other)
        samples = bootstrap_auc(rows.user, rows.label, np.stack(scores))
        samples = samples[:, names == name].mean(axis=1) - samples[:, names == best].mean(axis=1)
        low, high = np.quantile(samples, [0.025, 0.975])
        assert (table.loc[name, "low"], table.loc[name, "high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("simulated", [True, False])
def test_verdict_says_what_is_best_and_what_could_be_chance(runs, rows, simulated):
    dataset = SimpleNamespace(name="clicks", simulated=simulated)
    means, differences = compare.strategy_table(runs), compare.paired_differences(runs, rows)
    words = compare.verdict(means, differences, dataset)
    best = means["strategy"][0]
    assert f"{best} has the highest valid AUC, {means['AUC'][0]:.4f}" in words
    sentences = {part.split()[0]: part for part in words.split(". ")[1:]}
    assert "more than chance" in sentences["v1"]
    assert "could be chance" in sentences["v2" if best == "v4" else "v4"]
    assert ("says nothing about real clicks" in words) == simulated


def test_one_strategy_alone_is_compared_with_nothing(runs, rows):
    alone = [run for run in runs if run.strategy == "v4"]
    assert compare.paired_differences(alone, rows).empty
    assert "v4 has the highest" in compare.verdict(
        compare.strategy_table(alone),
        compare.paired_differences(alone, rows),
        SimpleNamespace(name="clicks", simulated=False),
    )


def test_probabilities_are_averaged_over_seeds(runs):
    means = compare.mean_probabilities(runs)
    assert list(means) == ["v1", "v2", "v4"]
    both = [run.predictions["probability"] for run in runs if run.strategy == "v2"]
    np.testing.assert_allclose(means["v2"], (both[0] + both[1]) / 2)
